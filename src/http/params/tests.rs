//! The recorded texts, and what a hostile request meets.

use super::*;

const FILES: &[ParamSpec] = &[
    ParamSpec::required("store", ParamKind::DATASTORE, ""),
    ParamSpec::optional("ns", ParamKind::NAMESPACE, ""),
    ParamSpec::required("backup-type", ParamKind::BACKUP_TYPE, ""),
    ParamSpec::required("backup-id", ParamKind::SAFE_ID, ""),
    ParamSpec::required("backup-time", ParamKind::BACKUP_TIME, ""),
    ParamSpec::optional("verbose", ParamKind::Boolean, ""),
];

const APPEND: &[ParamSpec] = &[
    ParamSpec::required("wid", ParamKind::Integer { min: 1, max: 256 }, ""),
    ParamSpec::required("digest-list", ParamKind::List(&ParamKind::DIGEST), ""),
    ParamSpec::required("offset-list", ParamKind::List(&ParamKind::Integer { min: 0, max: i64::MAX }), ""),
];

const NAME: &[ParamSpec] =
    &[ParamSpec::required("name", ParamKind::Text { pattern: "", min: 1, max: 32, matches: types::is_safe_id }, "")];

fn query(specs: &[ParamSpec], query: &str) -> Result<Params, ParamErrors> {
    check(specs, Received::from_query(&[], query)?)
}

fn json(specs: &[ParamSpec], body: &str) -> Result<Params, ParamErrors> {
    check(specs, Received::from_request(&[], "ignored=1", Some("application/json"), body.as_bytes())?)
}

fn words(result: Result<Params, ParamErrors>) -> String {
    result.expect_err("should be refused").to_string()
}

const SNAPSHOT: &str = "store=golden&backup-type=host&backup-id=x&backup-time=1717597418";

#[test]
fn recorded_texts_of_queries() {
    let one = "parameter verification failed - ";
    for (sent, text) in [
        ("&foo=1", "'foo': schema does not allow additional properties."),
        ("&verbose=maybe", "'verbose': Unable to parse boolean option."),
        ("&verbose=yes&verbose=no", "'verbose': duplicate parameter."),
        ("&ns=a%2F%2Fb", "'ns': value does not match the regex pattern"),
        ("&ns=a/../b", "'ns': value does not match the regex pattern"),
        ("&backup-id=y", "'backup-id': duplicate parameter."),
    ] {
        assert_eq!(words(query(FILES, &format!("{SNAPSHOT}{sent}"))), format!("{one}{text}"), "{sent}");
    }
    for (from, to, text) in [
        ("time=1717597418", "time=0", "'backup-time': value must have a minimum value of 1 (got 0)"),
        ("time=1717597418", "time=abc", "'backup-time': invalid digit found in string"),
        ("time=1717597418", "time=", "'backup-time': cannot parse integer from empty string"),
        ("host", "foo", "'backup-type': value 'foo' is not defined in the enumeration."),
        ("id=x", "id=a%2Fb", "'backup-id': value does not match the regex pattern"),
        ("id=x", "id=..", "'backup-id': value does not match the regex pattern"),
        ("id=x", "id=a%00", "'backup-id': value does not match the regex pattern"),
        ("id=x", "id=a+b", "'backup-id': value does not match the regex pattern"),
        ("id=x", "id=%ff", "'backup-id': value is not UTF-8"),
        ("store=golden", "store=a", "'store': value must be at least 3 characters long"),
        ("store=golden&", "", "'store': parameter is missing and it is not optional."),
    ] {
        assert_eq!(words(query(FILES, &SNAPSHOT.replace(from, to))), format!("{one}{text}"), "{to}");
    }
    assert_eq!(
        words(query(FILES, "store=golden")),
        "parameter verification failed:\n\
         - 'backup-id': parameter is missing and it is not optional.\n\
         - 'backup-time': parameter is missing and it is not optional.\n\
         - 'backup-type': parameter is missing and it is not optional."
    );
}

#[test]
fn recorded_texts_of_json() {
    let digest = "b".repeat(64);
    let one = "parameter verification failed - ";
    for (body, text) in [
        (
            format!(r#"{{"wid":1,"digest-list":["{digest}"]}}"#),
            "'offset-list': property is missing and it is not optional",
        ),
        (
            format!(r#"{{"wid":1,"digest-list":["{}"],"offset-list":[0]}}"#, digest.to_uppercase()),
            "'digest-list/[0]': value does not match the regex pattern",
        ),
        (
            format!(r#"{{"wid":1,"digest-list":["{digest}"],"offset-list":[0],"x":1}}"#),
            "'x': schema does not allow additional properties",
        ),
        (
            format!(r#"{{"wid":257,"digest-list":["{digest}"],"offset-list":[0]}}"#),
            "'wid': value must have a maximum value of 256 (got 257)",
        ),
        (format!(r#"{{"wid":1,"wid":1,"digest-list":["{digest}"],"offset-list":[0]}}"#), "'wid': duplicate parameter."),
        (format!(r#"{{"wid":"1","digest-list":["{digest}"],"offset-list":[0]}}"#), "'wid': an integer is expected"),
        (r#"{"wid":1,"digest-list":5,"offset-list":[0]}"#.to_owned(), "'digest-list': an array is expected"),
        (
            format!(r#"{{"wid":1,"digest-list":["{digest}"],"offset-list":[0,-1]}}"#),
            "'offset-list/[1]': value must have a minimum value of 0 (got -1)",
        ),
    ] {
        assert_eq!(words(json(APPEND, &body)), format!("{one}{text}"), "{body}");
    }
    assert_eq!(words(json(NAME, r#"{"name":"#)), "EOF while parsing a value at line 1 column 8");
    assert_eq!(words(json(NAME, r#"{"name":"a b"}"#)), format!("{one}'name': value does not match the regex pattern"));
    let long = format!(r#"{{"name":"{}"}}"#, "n".repeat(33));
    assert_eq!(words(json(NAME, &long)), format!("{one}'name': value may only be 32 characters long"));
    for body in ["[]", "5", "\"x\"", "null", "{", "{\"name\":\"a\"}x", &"[".repeat(100_000)] {
        assert!(json(NAME, body).is_err(), "{body:.20}");
    }
}

#[test]
fn every_source_is_read_and_json_hides_the_query() {
    let request = |content_type, query: &str, body: &str| {
        Received::from_request(&[("store", "main")], query, content_type, body.as_bytes())
    };
    const SPECS: &[ParamSpec] = &[
        ParamSpec::required("store", ParamKind::DATASTORE, ""),
        ParamSpec::optional("notes", ParamKind::ANY_TEXT, ""),
        ParamSpec::optional("a", ParamKind::Integer { min: 0, max: 9 }, ""),
    ];
    let notes = |received: Result<Received, ParamErrors>| {
        check(SPECS, received.unwrap()).map(|p| p.text("notes").map(ToOwned::to_owned))
    };
    let form = Some("application/x-www-form-urlencoded; charset=utf-8");
    assert_eq!(notes(request(form, "", "notes=a+b%26%C3%A4")), Ok(Some("a b&ä".to_owned())));
    assert_eq!(notes(request(None, "notes=q&_dc=17", "")), Ok(Some("q".to_owned())));
    assert_eq!(notes(request(form, "a=1", "notes=x&&")), Ok(Some("x".to_owned())));
    assert_eq!(notes(request(Some("application/json"), "nope=1", r#"{"notes":"j","a":null}"#)), Ok(Some("j".into())));
    assert_eq!(notes(request(Some("Application/JSON"), "", "")), Ok(None));
    assert!(notes(request(form, "store=main", "")).is_err(), "a query may not repeat what the path says");
    assert!(notes(request(form, "notes=1", "notes=2")).is_err());
    assert_eq!(
        words(request(Some("text/plain"), "", "name=abc").map(|_| Params::default())),
        "unsupported content type Ok(\"text/plain\")"
    );
}

#[test]
fn lists_come_from_repeated_keys_or_arrays() {
    let digest = "c".repeat(64);
    let sent = format!("wid=1&digest-list={digest}&digest-list={digest}&offset-list=0&offset-list=4194304");
    let from_query = query(APPEND, &sent).unwrap();
    let body = format!(r#"{{"wid":1,"digest-list":["{digest}","{digest}"],"offset-list":[0,4194304]}}"#);
    assert_eq!(from_query, json(APPEND, &body).unwrap());
    assert_eq!(from_query.texts("digest-list").collect::<Vec<_>>(), [&digest, &digest]);
    assert_eq!(from_query.uints("offset-list").collect::<Vec<_>>(), [0, 4_194_304]);
    assert_eq!(from_query.uint("wid"), Some(1));
    let empty = json(APPEND, r#"{"wid":1,"digest-list":[],"offset-list":[]}"#).unwrap();
    assert_eq!(empty.texts("digest-list").len(), 0);
}

#[test]
fn booleans() {
    for (text, want) in [("1", true), ("ON", true), ("Yes", true), ("true", true), ("0", false), ("No", false)] {
        let params = query(FILES, &format!("{SNAPSHOT}&verbose={text}")).unwrap();
        assert_eq!(params.bool("verbose"), Some(want), "{text}");
    }
}

#[test]
fn answers_do_not_grow_with_what_was_sent() {
    let text = words(query(FILES, &format!("{SNAPSHOT}&{}=1", "n".repeat(10_000))));
    assert!(text.len() < 400, "{}", text.len());
    let text = words(query(FILES, &SNAPSHOT.replace("host", &"h".repeat(10_000))));
    assert!(text.len() < 400, "{}", text.len());
}

#[test]
fn nouns_are_parsed_with_their_own_words() {
    let params = query(FILES, SNAPSHOT).unwrap();
    let store: types::DatastoreName = params.parsed("store").unwrap();
    assert_eq!(store.as_str(), "golden");
    assert_eq!(params.parsed_opt::<types::Namespace>("ns").unwrap(), None);
    assert!(params.parsed::<types::Namespace>("ns").is_err());
}

#[test]
fn what_the_schema_takes_can_be_a_snapshot() {
    let group = |id: &str| types::Group::new(types::BackupType::Host, id);
    let ParamKind::Integer { min, max } = ParamKind::BACKUP_TIME else { panic!() };
    for (time, fits) in [(min - 1, false), (min, true), (max, true), (max + 1, false)] {
        let snapshot = types::Snapshot::new(group("x").unwrap(), crate::clock::EpochSecs(time));
        assert_eq!(snapshot.is_ok(), fits, "{time}");
    }
    let text = words(query(FILES, &SNAPSHOT.replace("time=1717597418", &format!("time={}", max + 1))));
    assert!(text.contains("'backup-time': value must have a maximum value of"), "{text}");
    let ParamKind::Text { max, .. } = ParamKind::SAFE_ID else { panic!() };
    assert!(group(&"n".repeat(max)).is_ok() && group(&"n".repeat(max + 1)).is_err());
    let text = words(query(FILES, &SNAPSHOT.replace("id=x", &format!("id={}", "n".repeat(max + 1)))));
    assert!(text.contains("'backup-id': value may only be 255 characters long"), "{text}");
}
