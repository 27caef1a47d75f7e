//! How a value is written: fio's sizes, times, switches and lists. Pure.

use std::time::Duration;

/// Refuses `text`, and says what is understood.
fn refused(text: &str, grammar: &str) -> String {
    format!("{text:.80?} is no {grammar}")
}

/// Bytes: `4096`, `4k`, `4m`, `4KiB`. As in fio `k`, `m`, `g`, `t` and `KiB` are powers of 1024; so is `KB`, as `kb_base=1024` is
/// fio's default.
///
/// Errors: what is wrong with `text`.
pub fn size(text: &str) -> Result<u64, String> {
    let bad = || refused(text, "size: write 4096, 4k, 4m, 4g or 4MiB (powers of 1024)");
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = digits.parse().map_err(|_| bad())?;
    let unit = unit.to_ascii_lowercase();
    let (letter, rest) = unit.split_at(usize::from(unit.starts_with(['k', 'm', 'g', 't', 'p'])));
    let power = match letter {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => 5,
    };
    if !matches!((power, rest), (_, "" | "b") | (1.., "ib")) {
        return Err(bad());
    }
    1024_u64.pow(power).checked_mul(number).ok_or_else(bad)
}

/// A time: `90` and `90s` are seconds; `500ms`, `10us`, `5m`, `2h`, `1d`.
///
/// Errors: what is wrong with `text`.
pub fn time(text: &str) -> Result<Duration, String> {
    let bad = || refused(text, "time: write 10, 10s, 500ms, 5m or 2h");
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = digits.parse().map_err(|_| bad())?;
    let micros = match unit.to_ascii_lowercase().as_str() {
        "us" | "usec" => 1,
        "ms" | "msec" => 1_000,
        "" | "s" | "sec" => 1_000_000,
        "m" | "min" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return Err(bad()),
    };
    number.checked_mul(micros).map(Duration::from_micros).ok_or_else(bad)
}

/// A switch: `1` and `0`, `true` and `false`, `yes` and `no`, `on` and `off`.
///
/// Errors: what is wrong with `text`.
pub fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err(refused(text, "switch: write 1 or 0")),
    }
}

/// A whole number between two others.
///
/// Errors: what is wrong with `text`.
pub fn number(text: &str, min: u64, max: u64) -> Result<u64, String> {
    let number = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    };
    number.filter(|n| (min..=max).contains(n)).ok_or_else(|| {
        let most = if max == u64::MAX { "up".to_owned() } else { format!("to {max}") };
        refused(text, &format!("whole number from {min} {most}"))
    })
}

/// The most percentiles that fio prints.
const MAX_PERCENTILES: usize = 20;

/// `50:99:99.9`, ascending afterwards.
///
/// Errors: what is wrong with `text`.
pub fn percentiles(text: &str) -> Result<Vec<f64>, String> {
    let bad = || {
        refused(
            text,
            &format!("list of percentiles: write up to {MAX_PERCENTILES} numbers above 0 up to 100, as in 50:99:99.9"),
        )
    };
    let mut list = Vec::new();
    for part in text.split(':') {
        let percent: f64 = part.trim().parse().map_err(|_| bad())?;
        if !(percent > 0.0 && percent <= 100.0) {
            return Err(bad());
        }
        list.push(percent);
    }
    list.sort_by(f64::total_cmp);
    list.dedup();
    if list.len() > MAX_PERCENTILES { Err(bad()) } else { Ok(list) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_fio() {
        for (text, bytes) in [
            ("0", 0),
            ("1024", 1024),
            ("4k", 4096),
            ("4K", 4096),
            ("4KiB", 4096),
            ("4kb", 4096),
            ("4m", 4 << 20),
            ("8GiB", 8 << 30),
            ("1t", 1 << 40),
            ("512b", 512),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "k", "4x", "4kk", "-1", "4 k", "1.5g", "4ib", "99999999999p"] {
            assert!(size(text).unwrap_err().contains("is no size"), "{text}");
        }
    }

    #[test]
    fn times_are_seconds_unless_told_otherwise() {
        for (text, ms) in [("10", 10_000), ("10s", 10_000), ("1m", 60_000), ("500ms", 500), ("2h", 7_200_000), ("0", 0)]
        {
            assert_eq!(time(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "10x", "1.5s", "-1", "99999999999999999d"] {
            assert!(time(text).unwrap_err().contains("is no time"), "{text}");
        }
    }

    #[test]
    fn switches_numbers_and_lists() {
        assert_eq!((switch("1"), switch("off")), (Ok(true), Ok(false)));
        assert!(switch("2").is_err());
        assert_eq!((number("0x10", 1, 256), number("256", 1, 256)), (Ok(16), Ok(256)));
        assert_eq!(number("0", 1, 256), Err("\"0\" is no whole number from 1 to 256".to_owned()));
        assert_eq!(percentiles("99:50:99.9"), Ok(vec![50.0, 99.0, 99.9]));
        for text in ["", "0", "101", "50:", "x", "nan"] {
            assert!(percentiles(text).is_err(), "{text}");
        }
    }
}
