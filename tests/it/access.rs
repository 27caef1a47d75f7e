//! Who gets in and what they may do there: logins, tokens, permissions, and how each of them ends.

use std::time::Instant;

use ringvault::auth::{AccountChange, hash_password};
use ringvault::daemon::{DataDir, edit_users};
use serde_json::{Value, json};

use crate::support::daemon::{Daemon, STORE, read_environment};
use crate::support::users::PASSWORD;
use crate::support::wire::{Conn, PATIENCE, Reply};

/// What `golden-password-1` is in the C library's SHA-256 and yescrypt forms.
const SHA: &str = "$5$saltstring$5OEgah10p6LHY7VMhjHi26TvRdoxaOsd5ugEEYSNmw/";
const YESCRYPT: &str = "$y$j9T$abcdefghijklmnop$KGIWO2espQit89XDElDvSFF3wNEOUCmaU8hnemzwdS0";

/// Headers that say who asks.
type Login = Vec<(&'static str, String)>;

fn token(id: &str, secret: &str) -> Login {
    vec![("authorization", format!("PBSAPIToken={id}:{secret}"))]
}

/// The token of the first start, which may do everything.
fn admin(daemon: &Daemon) -> Login {
    token("admin@pbs!default", &read_environment(&daemon.data().join("connection.env"))["PBS_PASSWORD"])
}

async fn ask(daemon: &Daemon, who: &Login, method: &str, path: &str, params: Value) -> Reply {
    let mut conn = Conn::open(daemon.peer()).await.expect("connect");
    let mut headers: Vec<(&str, &str)> = who.iter().map(|(n, v)| (*n, v.as_str())).collect();
    headers.push(("content-type", "application/json"));
    let target = format!("/api2/json/{path}");
    let body = params.to_string();
    // A query counts only without a JSON body.
    let (headers, body) = if params.is_null() { (&headers[..headers.len() - 1], "") } else { (&headers[..], &*body) };
    let reply = conn.call(method, &target, headers, body.as_bytes()).await.expect("an answer");
    conn.close().await;
    reply
}

async fn get(daemon: &Daemon, who: &Login, path: &str) -> Reply {
    ask(daemon, who, "GET", path, Value::Null).await
}

async fn try_login(daemon: &Daemon, user: &str, password: &str) -> Reply {
    let body = json!({ "username": user, "password": password });
    ask(daemon, &Login::new(), "POST", "access/ticket", body).await
}

/// Logs in; headers that show the ticket, with the token against forged requests.
async fn login(daemon: &Daemon, user: &str, password: &str) -> (Login, String) {
    let data = try_login(daemon, user, password).await.data();
    let text = |name: &str| data[name].as_str().expect("a text").to_owned();
    let ticket = text("ticket");
    let cookie = format!("PBSAuthCookie={}", ticket.replace('+', "%2B").replace('=', "%3D"));
    (vec![("cookie", cookie), ("csrfpreventiontoken", text("CSRFPreventionToken"))], ticket)
}

fn users_file(daemon: &Daemon) -> String {
    std::fs::read_to_string(daemon.data().join("users.json")).expect("the users file")
}

/// Refusals so far: user and reason.
fn failures(daemon: &Daemon) -> Vec<(String, String)> {
    let log = daemon.log();
    let told = log.lines().filter_map(|line| line.split_once("authentication failure; rhost=127.0.0.1 user="));
    told.map(|(_, rest)| rest.split_once(" msg=").expect("a reason")).map(|(u, m)| (u.into(), m.into())).collect()
}

#[tokio::test]
async fn a_ticket_lives_until_its_user_ends() {
    let daemon = Daemon::start();
    let admin = admin(&daemon);
    let (mut tester, mut ticket) = login(&daemon, "tester@pbs", PASSWORD).await;
    assert_eq!(get(&daemon, &tester, "version").await.status, 200);
    // Renewal: the ticket for a password.
    let (renewed, _) = login(&daemon, "tester@pbs", &ticket).await;
    assert_eq!(get(&daemon, &renewed, "version").await.status, 200);
    try_login(&daemon, "other@pbs", &ticket).await.expect(401, "permission check failed.");
    // Anything but GET needs the second token.
    let cookie_only = vec![tester[0].clone()];
    let body = || json!({ "comment": "mine" });
    let path = "access/users/tester%40pbs";
    ask(&daemon, &cookie_only, "PUT", path, body()).await.expect(401, "missing CSRF prevention token");
    let forged = vec![tester[0].clone(), ("csrfpreventiontoken", "00000000:AAAA".to_owned())];
    ask(&daemon, &forged, "PUT", path, body()).await.expect(401, "invalid csrf token - invalid signature.");
    assert_eq!(ask(&daemon, &tester, "PUT", path, body()).await.data(), Value::Null);
    assert_eq!(get(&daemon, &tester, path).await.data()["comment"], "mine");
    // Disabled or past its end: ticket, password and tokens are void at once, and good again as soon as that is undone; but for the tickets
    // of one who was disabled.
    let bench = vec![("authorization", daemon.authorization())];
    for (ends, undone) in
        [(json!({"enable": false}), json!({"enable": true})), (json!({"expire": 1}), json!({"expire": 0}))]
    {
        ask(&daemon, &admin, "PUT", path, ends).await.data();
        for who in [&tester, &bench] {
            get(&daemon, who, "version").await.expect(401, "user account or token disabled or expired.");
        }
        for password in [PASSWORD, &ticket] {
            try_login(&daemon, "tester@pbs", password).await.expect(401, "permission check failed.");
        }
        ask(&daemon, &admin, "PUT", path, undone.clone()).await.data();
        if undone == json!({"enable": true}) {
            get(&daemon, &tester, "version").await.expect(401, "invalid ticket - invalid signature.");
            (tester, ticket) = login(&daemon, "tester@pbs", PASSWORD).await;
        }
        for who in [&tester, &bench] {
            assert_eq!(get(&daemon, who, "version").await.status, 200);
        }
    }
}

#[tokio::test]
async fn a_ticket_does_not_outlive_its_password_nor_its_user() {
    let daemon = Daemon::start();
    let admin = admin(&daemon);
    let void = "invalid ticket - invalid signature.";
    let (found, ticket) = login(&daemon, "tester@pbs", PASSWORD).await;
    assert_eq!(get(&daemon, &found, "version").await.status, 200);
    let change = json!({"userid": "tester@pbs", "password": "another-one"});
    ask(&daemon, &admin, "PUT", "access/password", change).await.data();
    // Most likely in the same second: what counts is what came first, not what the clock says.
    get(&daemon, &found, "version").await.expect(401, void);
    try_login(&daemon, "tester@pbs", &ticket).await.expect(401, "permission check failed.");
    let (own, _) = login(&daemon, "tester@pbs", "another-one").await;
    assert_eq!(get(&daemon, &own, "version").await.status, 200);
    // Another person of the same name.
    ask(&daemon, &admin, "DELETE", "access/users/tester%40pbs", Value::Null).await.data();
    get(&daemon, &own, "version").await.expect(401, void);
    let again = json!({"userid": "tester@pbs", "password": "another-one"});
    ask(&daemon, &admin, "POST", "access/users", again).await.data();
    for old in [&found, &own] {
        get(&daemon, old, "version").await.expect(401, void);
    }
    let (new, _) = login(&daemon, "tester@pbs", "another-one").await;
    assert_eq!(get(&daemon, &new, "version").await.status, 200);
}

#[tokio::test]
async fn a_token_from_its_making_to_its_end() {
    let daemon = Daemon::start();
    let (tester, _) = login(&daemon, "tester@pbs", PASSWORD).await;
    let path = "access/users/tester%40pbs/token/new";
    let made = ask(&daemon, &tester, "POST", path, json!({ "comment": "of a story" })).await.data();
    assert_eq!(made["tokenid"], "tester@pbs!new");
    let secret = made["value"].as_str().expect("a secret").to_owned();
    assert!(!users_file(&daemon).contains(&secret), "only a hash is kept");
    ask(&daemon, &tester, "POST", path, json!({})).await.expect(400, "token 'tester@pbs!new' already exists.");
    let new = token("tester@pbs!new", &secret);
    let status = format!("admin/datastore/{STORE}/status");
    // It may nothing by itself, whatever its user may; its user gives it what it needs, at once.
    get(&daemon, &new, &status).await.expect(403, "permission check failed");
    let place = format!("/datastore/{STORE}");
    let acl = |role: &str, delete: bool| json!({ "path": place, "role": role, "auth-id": "tester@pbs!new", "delete": delete });
    ask(&daemon, &tester, "PUT", "access/acl", acl("DatastoreAudit", false)).await.data();
    assert_eq!(get(&daemon, &new, &status).await.status, 200);
    let held = get(&daemon, &new, &format!("access/permissions?path={place}")).await.data();
    assert_eq!(held, json!({ &place: { "Datastore.Audit": true } }));
    ask(&daemon, &tester, "PUT", "access/acl", acl("DatastoreAudit", true)).await.data();
    get(&daemon, &new, &status).await.expect(403, "permission check failed");
    ask(&daemon, &tester, "PUT", "access/acl", acl("Admin", false)).await.data();
    let held = get(&daemon, &new, &format!("access/permissions?path={place}")).await.data();
    assert_eq!(held[&place]["Datastore.Allocate"], Value::Null, "no more than its user has: {held}");
    // Another secret ends the first.
    let again = ask(&daemon, &tester, "PUT", path, json!({ "regenerate": true })).await.data();
    get(&daemon, &new, "version").await.expect(401, "invalid credentials");
    let new = token("tester@pbs!new", again["value"].as_str().expect("a secret"));
    assert_eq!(get(&daemon, &new, &status).await.status, 200);
    ask(&daemon, &tester, "PUT", path, json!({ "enable": false })).await.data();
    get(&daemon, &new, "version").await.expect(401, "disabled or expired");
    ask(&daemon, &tester, "PUT", path, json!({ "enable": true, "delete": ["comment"] })).await.data();
    let shown = get(&daemon, &tester, path).await.data();
    assert_eq!(shown, json!({ "tokenid": "tester@pbs!new", "token-name": "new", "enable": true, "expire": 0 }));
    // It goes with its permissions: one of the same name begins with none.
    ask(&daemon, &tester, "DELETE", path, Value::Null).await.data();
    get(&daemon, &new, "version").await.expect(401, "disabled or expired");
    assert!(!users_file(&daemon).contains("tester@pbs!new"));
    get(&daemon, &tester, path).await.expect(404, "no such user or token: tester@pbs!new");
}

#[tokio::test]
async fn what_each_asker_sees_and_may_change() {
    let daemon = Daemon::start();
    let admin = admin(&daemon);
    let (tester, _) = login(&daemon, "tester@pbs", PASSWORD).await;
    let bench = vec![("authorization", daemon.authorization())];
    let names = |reply: &Reply, key: &str| -> Vec<String> {
        let data = reply.data();
        data.as_array().expect("a list").iter().map(|item| item[key].as_str().expect("a text").to_owned()).collect()
    };
    let all = get(&daemon, &admin, "access/users?include_tokens=1").await;
    assert_eq!(names(&all, "userid"), ["admin@pbs", "other@pbs", "tester@pbs"]);
    let tokens = all.data()[2]["tokens"].as_array().expect("tokens").len();
    assert_eq!(tokens, 2);
    assert_eq!(names(&get(&daemon, &tester, "access/users").await, "userid"), ["tester@pbs"]);
    assert_eq!(names(&get(&daemon, &bench, "access/users").await, "userid"), [""; 0]);
    assert_eq!(names(&get(&daemon, &tester, "access/acl").await, "ugid"), ["tester@pbs!bench", "tester@pbs!second"]);
    assert_eq!(names(&get(&daemon, &bench, "access/acl").await, "ugid"), [""; 0]);
    let below = names(&get(&daemon, &admin, "access/acl?path=/datastore").await, "ugid");
    assert_eq!(below, ["other@pbs", "other@pbs!tok", "tester@pbs", "tester@pbs!bench", "tester@pbs!second"]);
    assert_eq!(names(&get(&daemon, &admin, "access/acl?path=/datastore&exact=1").await, "ugid"), [""; 0]);
    assert_eq!(
        names(&get(&daemon, &admin, "access/acl?path=/&exact=1").await, "ugid"),
        ["admin@pbs", "admin@pbs!default"]
    );
    let held = get(&daemon, &admin, "access/permissions?auth-id=other@pbs").await.data();
    assert_eq!(held, json!({ format!("/datastore/{STORE}"): { "Datastore.Backup": true } }));
    let mut roles = names(&get(&daemon, &bench, "access/roles").await, "roleid");
    roles.retain(|role| !role.starts_with("Tape") && !role.starts_with("Remote"));
    assert_eq!(roles.len(), 8, "{roles:?}");
    assert_eq!(names(&get(&daemon, &Login::new(), "access/domains").await, "realm"), ["pbs"]);

    let denied = (403, "permission check failed");
    let acl = |auth: &str| json!({ "path": "/", "role": "Admin", "auth-id": auth });
    let other = "access/users/other%40pbs";
    for (who, method, path, params) in [
        (&tester, "GET", other.to_owned(), Value::Null),
        (&tester, "GET", format!("{other}/token"), Value::Null),
        (&tester, "GET", format!("{other}/token/tok"), Value::Null),
        (&tester, "POST", format!("{other}/token/mine"), json!({})),
        (&tester, "PUT", format!("{other}/token/tok"), json!({ "regenerate": true })),
        (&tester, "DELETE", format!("{other}/token/tok"), Value::Null),
        (&tester, "PUT", other.to_owned(), json!({ "comment": "x" })),
        (&tester, "DELETE", other.to_owned(), Value::Null),
        (&tester, "DELETE", "access/users/tester%40pbs".to_owned(), Value::Null),
        (&tester, "PUT", "access/users/tester%40pbs".to_owned(), json!({ "expire": 0 })),
        (&tester, "POST", "access/users".to_owned(), json!({ "userid": "mine@pbs" })),
        (&tester, "PUT", "access/acl".to_owned(), acl("tester@pbs")),
        (&tester, "PUT", "access/acl".to_owned(), acl("other@pbs!tok")),
        (&tester, "GET", "access/permissions?auth-id=other@pbs".to_owned(), Value::Null),
        (&tester, "PUT", "access/password".to_owned(), json!({ "userid": "other@pbs", "password": "12345" })),
        // A token is not its user.
        (&bench, "GET", "access/users/tester%40pbs".to_owned(), Value::Null),
        (&bench, "POST", "access/users/tester%40pbs/token/mine".to_owned(), json!({})),
        (&bench, "PUT", "access/users/tester%40pbs/token/bench".to_owned(), json!({ "regenerate": true })),
        (&bench, "PUT", "access/acl".to_owned(), acl("tester@pbs!bench")),
        (&bench, "PUT", "access/password".to_owned(), json!({ "userid": "tester@pbs", "password": "12345" })),
    ] {
        let before = users_file(&daemon);
        let reply = ask(&daemon, who, method, &path, params.clone()).await;
        assert!(
            (reply.status, true) == (denied.0, reply.text().contains(denied.1)),
            "{method} {path} {params}: {reply:?}"
        );
        assert_eq!(users_file(&daemon), before, "{method} {path} {params}");
    }
}

#[tokio::test]
async fn users_are_made_changed_and_removed_and_one_administrator_stays() {
    let daemon = Daemon::start();
    let admin = admin(&daemon);
    let new = json!({ "userid": "new@pbs", "password": "secret-1", "comment": "c", "email": "new@example.org", "firstname": "N", "lastname": "W" });
    ask(&daemon, &admin, "POST", "access/users", new.clone()).await.data();
    ask(&daemon, &admin, "POST", "access/users", new).await.expect(400, "user 'new@pbs' already exists.");
    ask(&daemon, &admin, "POST", "access/users", json!({ "userid": "new@ldap" })).await.expect(400, "unknown realm");
    let short = json!({ "userid": "short@pbs", "password": "1234" });
    ask(&daemon, &admin, "POST", "access/users", short).await.expect(400, "'password': value must be at least 5");
    login(&daemon, "new@pbs", "secret-1").await;
    let path = "access/users/new%40pbs";
    let shown = get(&daemon, &admin, path).await;
    let digest = serde_json::from_slice::<Value>(&shown.body).unwrap()["digest"].as_str().expect("a digest").to_owned();
    let want = json!({ "userid": "new@pbs", "enable": true, "expire": 0, "comment": "c", "email": "new@example.org", "firstname": "N", "lastname": "W" });
    assert_eq!(shown.data(), want);
    let change = |digest: &str| json!({ "delete": ["comment", "lastname"], "email": "", "digest": digest });
    ask(&daemon, &admin, "PUT", path, change(&digest)).await.data();
    ask(&daemon, &admin, "PUT", path, change(&digest)).await.expect(400, "detected modified configuration");
    assert_eq!(
        get(&daemon, &admin, path).await.data(),
        json!({ "userid": "new@pbs", "enable": true, "expire": 0, "firstname": "N" })
    );

    // The first administrator cannot be lost while there is no other, in whatever way.
    let left = (400, "would leave nobody");
    let root = |auth: &str| json!({ "path": "/", "role": "Admin", "auth-id": auth, "delete": true });
    for (method, path, params) in [
        ("DELETE", "access/users/admin%40pbs", Value::Null),
        ("DELETE", "access/users/admin%40pbs/token/default", Value::Null),
        ("PUT", "access/users/admin%40pbs", json!({ "enable": false })),
        ("PUT", "access/users/admin%40pbs/token/default", json!({ "expire": 1 })),
        ("PUT", "access/acl", root("admin@pbs")),
        ("PUT", "access/acl", root("admin@pbs!default")),
        ("PUT", "access/acl", json!({ "path": "/access", "role": "NoAccess", "auth-id": "admin@pbs" })),
    ] {
        let before = users_file(&daemon);
        ask(&daemon, &admin, method, path, params).await.expect(left.0, left.1);
        assert_eq!(users_file(&daemon), before);
    }
    ask(&daemon, &admin, "PUT", "access/acl", json!({ "path": "/", "role": "Admin", "auth-id": "new@pbs" }))
        .await
        .data();
    let (other_admin, _) = login(&daemon, "new@pbs", "secret-1").await;
    ask(&daemon, &other_admin, "DELETE", "access/users/admin%40pbs", Value::Null).await.data();
    get(&daemon, &admin, "version").await.expect(401, "disabled or expired");
    assert!(!users_file(&daemon).contains("admin@pbs"), "tokens and permissions went along");
    ask(&daemon, &other_admin, "DELETE", path, Value::Null).await.expect(left.0, left.1);
}

#[tokio::test]
async fn a_password_is_changed_by_who_knows_it() {
    let daemon = Daemon::start();
    let admin = admin(&daemon);
    let (tester, ticket) = login(&daemon, "tester@pbs", PASSWORD).await;
    let new = |confirmation: Option<&str>| match confirmation {
        Some(shown) => json!({ "userid": "tester@pbs", "password": "another-1", "confirmation-password": shown }),
        None => json!({ "userid": "tester@pbs", "password": "another-1" }),
    };
    let path = "access/password";
    ask(&daemon, &tester, "PUT", path, new(None)).await.expect(400, "'confirmation-password'");
    ask(&daemon, &tester, "PUT", path, new(Some("wrong"))).await.expect(401, "authentication failed");
    // Whoever found a ticket does not get the account with it.
    ask(&daemon, &tester, "PUT", path, new(Some(&ticket))).await.expect(401, "authentication failed");
    login(&daemon, "tester@pbs", PASSWORD).await;
    ask(&daemon, &tester, "PUT", path, new(Some(PASSWORD))).await.data();
    // What was remembered of the old one does not count any more.
    try_login(&daemon, "tester@pbs", PASSWORD).await.expect(401, "permission check failed.");
    login(&daemon, "tester@pbs", "another-1").await;
    ask(&daemon, &admin, "PUT", path, json!({ "userid": "tester@pbs", "password": PASSWORD })).await.data();
    login(&daemon, "tester@pbs", PASSWORD).await;
    ask(&daemon, &admin, "PUT", path, json!({ "userid": "root@pam", "password": PASSWORD }))
        .await
        .expect(400, "not of the realm pbs");
    ask(&daemon, &admin, "PUT", path, json!({ "userid": "no@pbs", "password": PASSWORD }))
        .await
        .expect(404, "no such user");
    let said = failures(&daemon);
    let want = ("tester@pbs".to_owned(), "invalid credentials".to_owned());
    assert_eq!(said, vec![want; 3], "each refusal is told once");
}

#[tokio::test]
async fn imported_secrets_become_ours_at_the_first_login() {
    let mut daemon = Daemon::start();
    daemon.terminate();
    let dir = DataDir::open(daemon.data()).unwrap();
    edit_users(&dir, |users| {
        users.set_password_hash(&"tester@pbs".parse()?, YESCRYPT.to_owned())?;
        let bench = "tester@pbs!bench".parse()?;
        let permissions = users.acl.clone();
        users.remove(&bench)?;
        users.import_token(&bench, &AccountChange::default(), Some(SHA.to_owned()))?;
        users.acl = permissions;
        Ok(())
    })
    .unwrap();
    daemon.launch();
    try_login(&daemon, "tester@pbs", "wrong").await.expect(401, "permission check failed.");
    get(&daemon, &token("tester@pbs!bench", "wrong"), "version").await.expect(401, "invalid credentials");
    assert!(users_file(&daemon).contains(YESCRYPT) && users_file(&daemon).contains(SHA));
    let bench = token("tester@pbs!bench", "golden-password-1");
    for _ in 0..2 {
        login(&daemon, "tester@pbs", "golden-password-1").await;
        assert_eq!(get(&daemon, &bench, "version").await.status, 200);
    }
    let started = Instant::now();
    while users_file(&daemon).contains(YESCRYPT) || users_file(&daemon).contains(SHA) {
        assert!(started.elapsed() < PATIENCE, "{}", daemon.log());
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    login(&daemon, "tester@pbs", "golden-password-1").await;
    assert_eq!(get(&daemon, &bench, "version").await.status, 200);
    try_login(&daemon, "tester@pbs", "wrong").await.expect(401, "permission check failed.");
    get(&daemon, &token("tester@pbs!bench", "wrong"), "version").await.expect(401, "invalid credentials");
    assert_eq!(daemon.log().matches("is now kept as our own are").count(), 2);
}

#[tokio::test]
async fn a_change_of_the_file_is_followed_however_small() {
    let daemon = Daemon::start();
    let dir = DataDir::open(daemon.data()).unwrap();
    // Hashes are of one length, so every version of the file is as long as the others.
    for (password, other) in [("secret-1", "secret-2"), ("secret-2", "secret-1"), ("secret-1", "secret-2")] {
        let hash = hash_password(password).unwrap();
        edit_users(&dir, |users| users.set_password_hash(&"tester@pbs".parse()?, hash.clone())).unwrap();
        let started = Instant::now();
        while try_login(&daemon, "tester@pbs", password).await.status != 200 {
            assert!(started.elapsed() < PATIENCE, "{}", daemon.log());
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        try_login(&daemon, "tester@pbs", other).await.expect(401, "permission check failed.");
    }
}

#[tokio::test]
async fn every_refusal_is_one_line_that_fail2ban_matches() {
    let daemon = Daemon::start();
    let (tester, _) = login(&daemon, "tester@pbs", PASSWORD).await;
    let cookie = vec![tester[0].clone()];
    let login_as = |name: &str| json!({ "username": name, "password": "wrong" });
    let none = Login::new();
    let bad_ticket = vec![("cookie", "PBSAuthCookie=PBS:tester@pbs:00000000::xxxx".to_owned())];
    let mut want = Vec::new();
    for (who, method, path, params, user, reason) in [
        (&none, "GET", "version", Value::Null, "unknown", "no authentication credentials provided."),
        (&none, "POST", "access/ticket", login_as("tester@pbs"), "tester@pbs", "invalid credentials"),
        (&none, "POST", "access/ticket", login_as("nobody@pbs"), "nobody@pbs", "invalid credentials"),
        (
            &none,
            "POST",
            "access/ticket",
            login_as("x;rhost=192.0.2.1@pbs"),
            "x;rhost=192.0.2.1@pbs",
            "invalid credentials",
        ),
        (
            &none,
            "POST",
            "access/ticket",
            login_as("root@pam"),
            "root@pam",
            "this server was built without PAM, so no user of the realm pam can log in",
        ),
        (&token("tester@pbs!bench", "wrong"), "GET", "version", Value::Null, "tester@pbs!bench", "invalid credentials"),
        (
            &token("tester@pbs!none", "wrong"),
            "GET",
            "version",
            Value::Null,
            "tester@pbs!none",
            "user account or token disabled or expired.",
        ),
        (&bad_ticket, "GET", "version", Value::Null, "unknown", "invalid ticket - expired"),
        (&cookie, "DELETE", "access/users/a%40pbs", Value::Null, "tester@pbs", "missing CSRF prevention token"),
    ] {
        let reply = ask(&daemon, who, method, path, params).await;
        assert_eq!(reply.status, 401, "{method} {path}: {}", reply.text());
        want.push((user.to_owned(), reason.to_owned()));
    }
    // Names that would break the line do not come so far.
    for name in [
        "a\nb@pbs",
        "a\r\nauthentication failure; rhost=192.0.2.1 user=b@pbs",
        "a b@pbs",
        "\u{1b}[31m@pbs",
        "a\u{2028}b@pbs",
    ] {
        ask(&daemon, &none, "POST", "access/ticket", login_as(name)).await.expect(400, "'username'");
        if name.is_ascii() {
            let escaped = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string();
            let reply = get(&daemon, &token(&escaped, "x"), "version").await;
            reply.expect(401, "no authentication credentials provided.");
            want.push(("unknown".to_owned(), "no authentication credentials provided.".to_owned()));
        }
    }
    assert_eq!(failures(&daemon), want);

    // The page's own expressions, read as fail2ban reads them.
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    let expression = |key: &str| {
        let line =
            page.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("{key} is not in the page"));
        line.trim_start_matches([' ', '=']).to_owned()
    };
    let script = "import re,sys\n\
        fail=re.compile(sys.argv[1].replace('<HOST>', r'(?:::f{4,6}:)?(?P<host>[\\w\\-.^_:]+)'))\n\
        ignore=re.compile(sys.argv[2])\n\
        hits=[fail.search(l) for l in open(sys.argv[3], encoding='utf-8') if not ignore.search(l)]\n\
        print(' '.join(h['host'] for h in hits if h))";
    let out = std::process::Command::new("python3")
        .args(["-c", script, &expression("failregex"), &expression("ignoreregex")])
        .arg(daemon.data().join("stderr.log"))
        .output();
    let out = match out {
        Ok(out) => out,
        Err(e) => return println!("skipped: fail2ban's expressions: python3: {e}"),
    };
    let counted = want.iter().filter(|(_, reason)| reason != "no authentication credentials provided.").count();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), vec!["127.0.0.1"; counted], "{out:?}");
}

#[tokio::test]
async fn paths_of_permissions_and_of_calls_do_not_climb() {
    let daemon = Daemon::start();
    let admin = admin(&daemon);
    let before = users_file(&daemon);
    for bad in [
        "/datastore/../access",
        "/datastore/..",
        "/datastore/.hidden",
        "/datastore/a%2Fb",
        "/datastore/%2e%2e",
        "/datastore/a\\b",
        "/datastore/a\nb",
        "/etc/passwd",
        "datastore/a",
        "../datastore",
        "",
        "/datastore/1/2/3/4/5/6/7/8/9",
    ] {
        let acl = json!({ "path": bad, "role": "Audit", "auth-id": "other@pbs" });
        ask(&daemon, &admin, "PUT", "access/acl", acl).await.expect(400, "'path'");
        let ticket = json!({ "username": "tester@pbs", "password": PASSWORD, "path": bad, "privs": "Sys.Audit" });
        ask(&daemon, &Login::new(), "POST", "access/ticket", ticket).await.expect(400, "'path'");
    }
    assert_eq!(users_file(&daemon), before);
    // Other spellings of one place are that place.
    for same in ["/datastore/golden/x", "//datastore//golden/x", "/datastore/golden/x/", "/datastore/golden/x//"] {
        let acl = json!({ "path": same, "role": "Audit", "auth-id": "other@pbs" });
        ask(&daemon, &admin, "PUT", "access/acl", acl).await.data();
        let shown = get(&daemon, &admin, "access/acl?path=/datastore/golden/x").await.data();
        assert_eq!(shown.as_array().expect("rows").len(), 1, "{same}: {shown}");
        assert_eq!(shown[0]["path"], "/datastore/golden/x", "{same}");
    }
    let after = users_file(&daemon);
    for (method, path, status) in [
        ("GET", "access/users/..", 400),
        ("GET", "access/users/%2e%2e", 400),
        ("GET", "access/users/..%2fusers", 400),
        ("GET", "access/users/.hidden%40pbs", 400),
        ("GET", "access/users/a%2fb%40pbs", 400),
        ("DELETE", "access/users/..%2f..%2fetc%40pbs", 400),
        ("POST", "access/users/tester%40pbs/token/..", 400),
        ("POST", "access/users/tester%40pbs/token/%2e%2e", 400),
        ("POST", "access/users/tester%40pbs/token/a%2fb", 400),
        ("POST", "access/users/tester%40pbs/token/a%00", 400),
        ("GET", "access/users/%ff%40pbs", 404),
        ("GET", "access/users//tester%40pbs/", 200),
    ] {
        let reply = ask(&daemon, &admin, method, path, Value::Null).await;
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.text());
    }
    assert_eq!(users_file(&daemon), after);
}

#[tokio::test]
async fn a_ticket_can_be_asked_for_with_what_it_must_be_good_for() {
    let daemon = Daemon::start();
    let place = format!("/datastore/{STORE}");
    let asked = |more: Value| {
        let mut body = json!({ "username": "tester@pbs", "password": PASSWORD });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    for (more, status, says) in [
        (json!({ "path": place, "privs": "Datastore.Audit" }), 200, "CSRFPreventionToken"),
        (json!({ "path": place, "privs": "Datastore.Audit,Datastore.Backup" }), 200, "CSRFPreventionToken"),
        (
            json!({ "path": place, "privs": "Datastore.Audit,Datastore.Allocate" }),
            403,
            "missing Datastore.Audit|Datastore.Allocate on /datastore/",
        ),
        (json!({ "path": "/", "privs": "Sys.Audit" }), 403, "missing Sys.Audit on /"),
        (json!({ "path": place }), 400, "'privs'"),
        (json!({ "privs": "Sys.Audit" }), 400, "'path'"),
        (json!({ "path": place, "privs": "Everything" }), 400, "'privs'"),
        (json!({ "port": 5900 }), 400, "'port'"),
        (json!({ "tfa-challenge": "x" }), 400, "'tfa-challenge'"),
    ] {
        let reply = ask(&daemon, &Login::new(), "POST", "access/ticket", asked(more)).await;
        reply.expect(status, says);
    }
    // With a wrong password nobody learns who may do what.
    let mut wrong = asked(json!({ "path": "/", "privs": "Sys.Audit" }));
    wrong["password"] = "wrong".into();
    ask(&daemon, &Login::new(), "POST", "access/ticket", wrong).await.expect(401, "permission check failed.");
}
