//! fio's job files, line by line. Pure.
//!
//! ```text
//! ; a comment, # another one
//! [global]            options for all jobs after it
//! directory=/mnt/disk
//! [first]             a job
//! rw=known-append
//! cold                a switch may go without =1
//! ```

/// One line that means something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// `[name]`.
    Section(&'a str),
    /// `key=value`, or a key alone.
    Option(&'a str, Option<&'a str>),
}

/// The lines that mean something, with their numbers from 1.
///
/// Errors: the number of the line, and what is wrong with it.
pub fn lines(text: &str) -> impl Iterator<Item = Result<(usize, Line<'_>), (usize, String)>> {
    text.lines().enumerate().filter_map(|(at, line)| {
        let line = line.trim();
        if line.is_empty() || line.starts_with([';', '#']) {
            return None;
        }
        let number = at + 1;
        if let Some(rest) = line.strip_prefix('[') {
            let name = rest.strip_suffix(']').map(str::trim).filter(|name| !name.is_empty());
            let bad = || (number, format!("{line:.80?} is no section: write [name]"));
            return Some(name.map(|name| (number, Line::Section(name))).ok_or_else(bad));
        }
        let (key, value) = match line.split_once('=') {
            Some((key, value)) => (key.trim_end(), Some(value.trim_start())),
            None => (line, None),
        };
        Some(Ok((number, Line::Option(key, value))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_blanks_mean_nothing_and_a_value_may_hold_anything() {
        let text = "; one\n# two\n\n[ a ]\r\n  rw = known-append\ncold\ndirectory=/a=b;c #d\n";
        let read: Vec<_> = lines(text).map(Result::unwrap).collect();
        let expected = [
            (4, Line::Section("a")),
            (5, Line::Option("rw", Some("known-append"))),
            (6, Line::Option("cold", None)),
            (7, Line::Option("directory", Some("/a=b;c #d"))),
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn a_section_has_a_name_and_an_end() {
        for text in ["[", "[a", "[]", "[ ]", "[a] b"] {
            assert!(lines(text).next().unwrap().unwrap_err().1.contains("is no section"), "{text}");
        }
    }
}
