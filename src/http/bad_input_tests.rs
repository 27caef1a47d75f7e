//! Every parameter of every row, wrong in every way that its kind knows: each error names its parameter, in both formats and from every
//! source (spec 05 §1). Made from the table, so that a new row needs no line here.

use std::collections::BTreeSet;

use super::api;
use super::params::{self, ParamErrors, ParamKind, ParamSpec, Received};
use super::rights_tests::{given, target, wired_with};
use super::router::{BodyUse, Route};

/// Texts that few grammars take.
const BAD_TEXTS: [&str; 14] = [
    "",
    "..",
    ".",
    ".hidden",
    "../../etc/passwd",
    "a/b",
    "a//b",
    "a\\b",
    "a b",
    "a\0",
    "a\n",
    "\u{1b}[31m",
    "é",
    "%2e%2e",
];

/// Longest text that is worth a try here: one below a request's own limit.
const TEXT_CHARS_MAX: usize = 2000;

fn is_in_path(route: &Route, spec: &ParamSpec) -> bool {
    route.path.contains(&format!("{{{}}}", spec.name))
}

/// Values as text that a kind does not take.
fn bad_texts(kind: &ParamKind) -> Vec<String> {
    match kind {
        ParamKind::Text { min, max, matches, .. } => {
            let fits = |text: &String| (*min..=*max).contains(&text.chars().count()) && matches(text);
            let mut bad: Vec<String> = BAD_TEXTS.map(str::to_owned).to_vec();
            bad.extend((*max < TEXT_CHARS_MAX).then(|| "n".repeat(max + 1)));
            bad.extend((*min > 1).then(|| "n".repeat(min - 1)));
            bad.into_iter().filter(|text| !fits(text)).collect()
        }
        ParamKind::Integer { min, max } => {
            let words = ["", "x", "1.5", "1e3", "0x10", " 1", "9223372036854775808", "99999999999999999999"];
            let beyond = [min.checked_sub(1), max.checked_add(1)].into_iter().flatten().map(|n| n.to_string());
            words.map(str::to_owned).into_iter().chain(beyond).collect()
        }
        ParamKind::Boolean => ["", "2", "maybe", "truetrue"].map(str::to_owned).to_vec(),
        ParamKind::Enum(_) => ["", "no-such-word", "../host"].map(str::to_owned).to_vec(),
        ParamKind::List(of) => bad_texts(of),
    }
}

/// Values as JSON that a kind does not take: those of another type, and those whose text is wrong.
fn bad_json(kind: &ParamKind) -> Vec<serde_json::Value> {
    use serde_json::json;
    let mut bad = vec![json!({}), json!([[]]), json!([{}])];
    match kind {
        ParamKind::Text { .. } | ParamKind::Enum(_) => {
            bad.extend([json!(5), json!(true), json!([])]);
            bad.extend(bad_texts(kind).into_iter().map(serde_json::Value::from));
        }
        ParamKind::Integer { min, max } => {
            bad.extend([json!("1"), json!(true), json!(1.5), json!(u64::MAX), json!([])]);
            bad.extend([min.checked_sub(1), max.checked_add(1)].into_iter().flatten().map(serde_json::Value::from));
        }
        ParamKind::Boolean => bad.extend([json!("true"), json!(1), json!([])]),
        ParamKind::List(of) => {
            bad.extend([json!("a"), json!(5)]);
            bad.extend(bad_json(of).into_iter().map(|item| json!([item])));
        }
    }
    bad
}

/// The names that are told to be wrong; places within a list left out.
fn wrong(route: &Route, received: Result<Received, ParamErrors>) -> BTreeSet<String> {
    match received.and_then(|received| params::check(route.params, received)) {
        Ok(_) => BTreeSet::new(),
        Err(ParamErrors::Wrong(list)) => list.keys().map(|name| name.split('/').next().unwrap().to_owned()).collect(),
        Err(ParamErrors::Unreadable(text)) => panic!("{route:?}: {text}"),
    }
}

fn form(pairs: &[(&str, String)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

#[test]
fn each_wrong_parameter_of_each_row_is_named() {
    const FORM: Option<&str> = Some("application/x-www-form-urlencoded");
    let mut tried = 0;
    for route in api::router().routes() {
        let good = given(route);
        let (in_path, elsewhere): (Vec<_>, Vec<_>) =
            good.into_iter().partition(|(name, _)| route.path.contains(&format!("{{{name}}}")));
        let path: Vec<(&str, &str)> = in_path.iter().map(|(name, value)| (*name, value.as_str())).collect();
        // Query, form, and both without a content type; JSON is tried below.
        let from_text = |pairs: &[(&str, String)]| match route.body {
            BodyUse::Raw => vec![Received::from_query(&path, &form(pairs))],
            BodyUse::Parameters => vec![
                Received::from_request(&path, &form(pairs), None, b""),
                Received::from_request(&path, &form(pairs), FORM, b""),
                Received::from_request(&path, "", FORM, form(pairs).as_bytes()),
            ],
        };
        let mut assert_named = |pairs: &[(&str, String)], name: &str, what: &str| {
            for received in from_text(pairs) {
                tried += 1;
                assert_eq!(wrong(route, received), BTreeSet::from([name.to_owned()]), "{route:?}: {name} {what}");
            }
        };
        assert_eq!(wrong(route, from_text(&elsewhere).remove(0)), BTreeSet::new(), "{route:?}: good samples");
        assert_named(&[&elsewhere[..], &[("no-such", "1".to_owned())]].concat(), "no-such", "unknown");
        for spec in route.params {
            let others: Vec<_> = elsewhere.iter().filter(|(name, _)| *name != spec.name).cloned().collect();
            let with = |values: &[&str]| -> Vec<(&str, String)> {
                others.iter().cloned().chain(values.iter().map(|value| (spec.name, (*value).to_owned()))).collect()
            };
            if is_in_path(route, spec) {
                assert_named(&with(&["abc"]), spec.name, "in path and query");
                for value in bad_texts(&spec.kind) {
                    let mut path = path.clone();
                    path.iter_mut().filter(|(name, _)| *name == spec.name).for_each(|pair| pair.1 = &value);
                    let received = Received::from_request(&path, &form(&elsewhere), None, b"");
                    assert_eq!(wrong(route, received), BTreeSet::from([spec.name.to_owned()]), "{route:?}: {value:?}");
                }
                continue;
            }
            if spec.required {
                assert_named(&others, spec.name, "missing");
            }
            if !matches!(spec.kind, ParamKind::List(_)) {
                assert_named(&with(&["1", "1"]), spec.name, "twice");
            }
            for value in bad_texts(&spec.kind) {
                assert_named(&with(&[&value]), spec.name, &format!("= {value:.40?}"));
            }
        }
    }
    assert!(tried > 3000, "{tried}");
}

#[test]
fn each_wrong_parameter_of_a_json_body_is_named() {
    let received = |path: &[(&str, &str)], object: &serde_json::Map<String, serde_json::Value>| {
        let body = serde_json::Value::Object(object.clone()).to_string();
        Received::from_request(path, "ignored=1", Some("application/json"), body.as_bytes())
    };
    let mut tried = 0;
    for route in api::router().routes().filter(|route| route.body == BodyUse::Parameters) {
        let given = given(route);
        let in_path = |name: &str| route.path.contains(&format!("{{{name}}}"));
        let path: Vec<(&str, &str)> =
            given.iter().filter(|(name, _)| in_path(name)).map(|(name, value)| (*name, value.as_str())).collect();
        let typed = |spec: &ParamSpec, text: &str| match spec.kind {
            ParamKind::Integer { .. } | ParamKind::Boolean => serde_json::from_str(text).unwrap(),
            _ => serde_json::Value::from(text),
        };
        let good: serde_json::Map<_, _> = given
            .iter()
            .filter(|(name, _)| !in_path(name))
            .map(|(name, text)| {
                let spec = route.params.iter().find(|spec| spec.name == *name).unwrap();
                ((*name).to_owned(), typed(spec, text))
            })
            .collect();
        assert_eq!(wrong(route, received(&path, &good)), BTreeSet::new(), "{route:?}: good samples");
        let mut assert_named = |name: &str, value: Option<serde_json::Value>| {
            let mut object = good.clone();
            object.remove(name);
            object.extend(value.clone().map(|value| (name.to_owned(), value)));
            tried += 1;
            let found = wrong(route, received(&path, &object));
            assert_eq!(found, BTreeSet::from([name.to_owned()]), "{route:?}: {name} = {value:?}");
        };
        assert_named("no-such", Some(1.into()));
        for spec in route.params {
            if is_in_path(route, spec) {
                assert_named(spec.name, Some("abc".into()));
                continue;
            }
            if spec.required {
                assert_named(spec.name, None);
                assert_named(spec.name, Some(serde_json::Value::Null));
            }
            bad_json(&spec.kind).into_iter().for_each(|value| assert_named(spec.name, Some(value)));
        }
    }
    assert!(tried > 1000, "{tried}");
}

/// All at once, over a socket: nothing between the check and the client loses a name.
#[tokio::test]
async fn all_that_is_wrong_is_told_at_once_in_both_formats() {
    let server = wired_with(|_| {}).await;
    for route in api::router().routes() {
        let method = route.method.as_str();
        let path = |format: &str| target(route, format).split('?').next().unwrap().to_owned();
        let mut pairs = vec![("no-such", "1".to_owned())];
        for spec in route.params.iter().filter(|spec| !is_in_path(route, spec)) {
            pairs.extend(bad_texts(&spec.kind).first().map(|value| (spec.name, value.clone())));
        }
        // What takes any text is left out, and told if it must not be.
        let missing =
            route.params.iter().filter(|spec| spec.required && !is_in_path(route, spec)).map(|spec| spec.name);
        let names: BTreeSet<&str> = pairs.iter().map(|(name, _)| *name).chain(missing).collect();
        let query = form(&pairs);
        let answer =
            server.request(method, &format!("{}?{query}", path("json")), super::test_support::ADMIN, None).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 "), "{route:?}: {answer:.300}");
        assert!(
            head.to_ascii_lowercase().contains("content-type: application/json;charset=utf-8"),
            "{route:?}: {head}"
        );
        assert!(body.starts_with("parameter verification failed"), "{route:?}: {body:.300}");
        for name in &names {
            assert!(
                body.contains(&format!("'{name}': ")) || body.contains(&format!("'{name}/[0]': ")),
                "{route:?}: {name} in {body}"
            );
        }
        let answer =
            server.request(method, &format!("{}?{query}", path("extjs")), super::test_support::ADMIN, None).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{route:?}: {answer:.300}");
        let told: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!((&told["success"], &told["status"]), (&false.into(), &400.into()), "{route:?}: {told}");
        let keys: BTreeSet<&str> =
            told["errors"].as_object().unwrap().keys().map(|name| name.split('/').next().unwrap()).collect();
        assert_eq!(keys, names, "{route:?}");
    }
}

/// A component that begins with a dot, or holds one or a slash after it is decoded, reaches no row, whatever stands in its place.
#[tokio::test]
async fn paths_do_not_climb_whatever_row_they_lead_to() {
    let server = wired_with(|_| {}).await;
    for route in api::router().routes().filter(|route| route.path.contains('{')) {
        for spec in route.params.iter().filter(|spec| is_in_path(route, spec)) {
            for (component, says) in [
                ("..", "illegal components"),
                (".hidden", "illegal components"),
                ("%2e%2e", "illegal components"),
                ("%2E.%2Fmain", "illegal components"),
                ("main%2F..%2Fmain", "parameter verification failed"),
                ("a%2Fb", "parameter verification failed"),
                ("%2F", "parameter verification failed"),
                ("%252e%252e%252f", "parameter verification failed"),
                ("a%00", "parameter verification failed"),
            ] {
                // Decoded once it is a name with percent signs, which any name of the node may have.
                if spec.name == "node" && component.starts_with("%25") {
                    continue;
                }
                let (path, query) =
                    target(route, "json").split_once('?').map(|(p, q)| (p.to_owned(), q.to_owned())).unwrap();
                let place = route.path.split('/').position(|part| part == format!("{{{}}}", spec.name)).unwrap();
                let mut parts: Vec<&str> = path.split('/').collect();
                // Before it stand an empty part, `api2` and the format.
                parts[place + 3] = component;
                let target = format!("{}?{query}", parts.join("/"));
                let answer = server.request(route.method.as_str(), &target, super::test_support::ADMIN, None).await;
                assert!(answer.starts_with("HTTP/1.1 400 "), "{route:?} {component}: {answer:.300}");
                let body = answer.split_once("\r\n\r\n").unwrap().1;
                assert!(body.contains(says), "{route:?} {component}: {body}");
                if says.starts_with("parameter") {
                    assert!(body.contains(&format!("'{}': ", spec.name)), "{route:?} {component}: {body}");
                }
            }
        }
    }
}

/// Some parameters only a handler can judge: these are named as well.
#[tokio::test]
async fn what_handlers_find_wrong_is_named_too() {
    let server = wired_with(|_| {}).await;
    let store = "admin/datastore/main";
    let snapshot = "backup-type=vm&backup-id=100&backup-time=1717597418";
    let login = "access/ticket?username=admin@pbs&password=wrong";
    for (method, path, name) in [
        ("PUT", "config/datastore/main?tuning=nothing".to_owned(), "tuning"),
        ("PUT", "config/datastore/main?gc-schedule=never-ever".to_owned(), "gc-schedule"),
        ("PUT", "config/datastore/main?maintenance-mode=lunch".to_owned(), "maintenance-mode"),
        ("POST", format!("config/datastore?name=new&path={}/main/x", server.dir().display()), "path"),
        ("POST", "config/datastore?name=new&path=/nowhere&gc-schedule=never-ever".to_owned(), "gc-schedule"),
        ("POST", "config/prune?id=job&store=main&schedule=never-ever".to_owned(), "schedule"),
        ("POST", format!("{store}/namespace?parent=a/b/c/d/e/f/g&name=h"), "name"),
        ("POST", "access/users?userid=new@ldap".to_owned(), "userid"),
        ("POST", format!("{store}/verify?backup-type=vm"), "backup-id"),
        ("POST", format!("{store}/verify?backup-id=100"), "backup-type"),
        ("POST", format!("{store}/verify?backup-time=1"), "backup-type"),
        ("GET", format!("{store}/download?{snapshot}&file-name=owner"), "file-name"),
        ("GET", format!("{store}/download-decoded?{snapshot}&file-name=x.txt"), "file-name"),
        ("POST", format!("{login}&path=/"), "privs"),
        ("POST", format!("{login}&privs=Sys.Audit"), "path"),
        ("POST", format!("{login}&port=5900"), "port"),
        ("POST", format!("{login}&tfa-challenge=x"), "tfa-challenge"),
        (
            "PUT",
            "access/password?userid=u@pbs&password=12345&confirmation-password=x".to_owned(),
            "confirmation-password",
        ),
    ] {
        let ask = async |format| {
            server.request(method, &format!("/api2/{format}/{path}"), super::test_support::ADMIN, None).await
        };
        let answer = ask("json").await;
        let words = format!("parameter verification failed - '{name}': ");
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains(&words), "{method} {path}: {answer:.400}");
        let answer = ask("extjs").await;
        let told: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!((&told["success"], &told["status"]), (&false.into(), &400.into()), "{method} {path}: {told}");
        assert!(told["errors"][name].as_str().is_some_and(|reason| !reason.is_empty()), "{method} {path}: {told}");
    }
}

/// Only what comes before the format is known has none: an open row that refuses a login has the dress that was asked for.
#[tokio::test]
async fn a_refused_login_wears_the_format_and_a_missing_one_does_not() {
    let server = wired_with(|_| {}).await;
    let path = "/api2/extjs/access/ticket?username=admin@pbs&password=wrong";
    let answer = server.request("POST", path, "", None).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let told: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let want =
        serde_json::json!({ "success": false, "status": 401, "message": "permission check failed.", "errors": {} });
    assert_eq!(told, want);
    let answer = server.request("GET", "/api2/extjs/version", "", None).await;
    assert!(answer.starts_with("HTTP/1.1 401 ") && !answer.to_ascii_lowercase().contains("content-type"), "{answer}");
}

/// Path and query together may have 3072 bytes.
#[tokio::test]
async fn a_target_is_cut_off_at_its_limit() {
    let server = wired_with(|_| {}).await;
    let target = |length: usize| {
        let path = "/api2/json/version?_dc=";
        format!("{path}{}", "1".repeat(length - path.len()))
    };
    for (length, status) in [(3072, "200"), (3074, "414")] {
        let answer = server.get(&target(length)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{length}: {answer:.200}");
    }
}

/// Calls that stream look at the query alone; all others refuse what is neither a form nor JSON.
#[tokio::test]
async fn the_type_of_a_body_counts_where_parameters_are_read_from_it() {
    let server = wired_with(|_| {}).await;
    let login = format!("{}content-type: text/plain\r\n", super::test_support::ADMIN);
    let mut streaming = BTreeSet::new();
    for route in api::router().routes() {
        let answer = server.request(route.method.as_str(), &target(route, "json"), &login, None).await;
        let refused = answer.starts_with("HTTP/1.1 400 ") && answer.contains("unsupported content type");
        assert_eq!(refused, route.body == BodyUse::Parameters, "{route:?}: {answer:.300}");
        if !refused {
            streaming.insert(format!("{route:?}"));
        }
    }
    let store = "admin/datastore/{store}";
    let want = [
        format!("GET {store}/download"),
        format!("GET {store}/download-decoded"),
        format!("POST {store}/upload-backup-log"),
        "GET nodes/{node}/tasks/{upid}/log".to_owned(),
        "GET backup".to_owned(),
        "GET reader".to_owned(),
    ];
    assert_eq!(streaming, BTreeSet::from(want));
}
