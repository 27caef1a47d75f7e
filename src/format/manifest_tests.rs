//! Manifests: the published vectors, what survives a rewrite, hostile input.

use proptest::prelude::*;

use super::*;
use crate::error::Kind;

const UNSIGNED: &str = include_str!("../../tests/data/vectors/manifest-unsigned.json");
const SIGNED: &str = include_str!("../../tests/data/vectors/manifest-signed.json");
const FAILED: &str = include_str!("../../tests/data/vectors/manifest-after-failed-verify.json");
const FACTS: &str = include_str!("../../tests/data/vectors/facts.json");

/// What a server or client of another version might have written.
const UNKNOWN: &str = r#"{
  "x-top": [1.5, {"z": null, "a": 18446744073709551615}], "backup-type": "vm", "backup-id": "1", "backup-time": 1,
  "files": [{"csum": "0000000000000000000000000000000000000000000000000000000000000000", "filename": "a.fidx",
             "size": 18446744073709551615, "x-file": "ä"}],
  "unprotected": {"x-unprot": {"a": [1]}, "verify_state": {"state": "maybe"}}
}"#;

fn parse(json: &str) -> Manifest {
    Manifest::parse(json.as_bytes()).unwrap()
}

fn fact(key: &str) -> String {
    let facts: Value = serde_json::from_str(FACTS).unwrap();
    facts[key].as_str().unwrap().to_owned()
}

#[test]
fn the_published_vectors_are_read_and_written_back_as_they_were() {
    for json in [UNSIGNED, SIGNED, FAILED] {
        let manifest = parse(json);
        assert_eq!(manifest.to_json_pretty(), json);
        assert_eq!(Manifest::from_blob(&manifest.to_blob()).unwrap(), manifest);
        assert_eq!(manifest.snapshot().to_string(), "host/example/2024-06-05T14:23:38Z");
        let files: Vec<_> = manifest.files().iter().map(|f| (f.filename.as_str(), f.size)).collect();
        assert_eq!(files, [("test.img.fidx", 4_195_304), ("data.conf.blob", 24)]);
    }
    let failed = parse(FAILED);
    assert_eq!(failed.verify_state().unwrap().state, VerifyOutcome::Failed);
    assert_eq!(failed.verify_state().unwrap().upid, fact("upid_example"));
    assert_eq!((failed.notes(), failed.comment()), ("first line\nsecond line", Some("first line")));
    let stats = ChunkUploadStats { count: 2, size: 4_195_304, compressed_size: 1171, duplicates: 0 };
    assert_eq!(failed.chunk_upload_stats(), Some(stats));
}

#[test]
fn the_published_signature() {
    let mut manifest = parse(SIGNED);
    assert_eq!(manifest.signature(), Some(fact("manifest_signature").as_str()));
    assert_eq!(manifest.key_fingerprint(), Some(fact("key_fingerprint").as_str()));
    assert_eq!(manifest.canonical_json().unwrap(), fact("manifest_signed_canonical"));
    let id_key = hex::decode(fact("id_key_hex")).unwrap().try_into().unwrap();
    manifest.fixed.remove("signature");
    assert!(!manifest.is_signed());
    manifest.sign(&id_key).unwrap();
    assert_eq!(manifest.to_json_pretty(), SIGNED);
    assert!(parse(UNKNOWN).sign(&id_key).is_err(), "a null cannot be signed");
}

#[test]
fn a_manifest_built_here_is_the_published_one() {
    let model = parse(SIGNED);
    let mut built = Manifest::new(model.snapshot());
    for file in model.files() {
        built.add_file(file.clone()).unwrap();
    }
    built.sign(&hex::decode(fact("id_key_hex")).unwrap().try_into().unwrap()).unwrap();
    built.set_key_fingerprint(&fact("key_fingerprint"));
    assert_eq!(built, model);
    for taken in ["test.img.fidx", "index.json.blob", "client.log.blob"] {
        let file = ManifestFile { filename: taken.parse().unwrap(), ..model.files()[0].clone() };
        assert!(built.add_file(file).is_err(), "{taken}");
    }
    assert_eq!(built, model);
    assert_eq!(built.file(&"data.conf.blob".parse().unwrap()).unwrap().size, 24);
}

#[test]
fn unknown_keys_survive_every_edit_and_the_signed_part_never_changes() {
    let mut manifest = parse(UNKNOWN);
    let before: Value = serde_json::from_str(UNKNOWN).unwrap();
    assert_eq!(manifest.files()[0].crypt_mode, CryptMode::None, "the default of old servers");
    manifest.set_notes("a\nb");
    manifest.set_verify_state(VerifyState { state: VerifyOutcome::Failed, upid: "UPID:x".into() });
    manifest.set_chunk_upload_stats(ChunkUploadStats { count: u64::MAX, ..ChunkUploadStats::default() });
    manifest.set_key_fingerprint("aa:bb");
    let after: Value = serde_json::from_str(&manifest.to_json_pretty()).unwrap();
    for key in ["x-top", "backup-type", "backup-id", "backup-time", "files"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    assert_eq!(after["unprotected"]["x-unprot"], before["unprotected"]["x-unprot"]);
    assert_eq!(after["unprotected"]["verify_state"], json!({"state": "failed", "upid": "UPID:x"}));
    assert_eq!(manifest.chunk_upload_stats().unwrap().count, u64::MAX);
    let mut signed = parse(SIGNED);
    let canonical = signed.canonical_json().unwrap();
    signed.set_notes("x");
    signed.set_verify_state(VerifyState { state: VerifyOutcome::Ok, upid: String::new() });
    assert_eq!(signed.canonical_json().unwrap(), canonical);
}

#[test]
fn nonsense_in_the_unprotected_part_is_as_good_as_nothing() {
    let with =
        |unprotected: &str| parse(&UNSIGNED.replace("\"unprotected\": {}", &format!("\"unprotected\": {unprotected}")));
    for unprotected in [
        r#"{"verify_state": {"state": "maybe"}, "notes": 1, "key-fingerprint": [], "chunk_upload_stats": {"count": -1}}"#,
        r#"{"verify_state": "ok", "notes": null, "key-fingerprint": null, "chunk_upload_stats": 7}"#,
        "{}",
        "null",
    ] {
        let manifest = with(unprotected);
        assert_eq!((manifest.verify_state(), manifest.notes(), manifest.comment()), (None, "", None));
        assert_eq!((manifest.key_fingerprint(), manifest.chunk_upload_stats()), (None, None));
    }
    let unnamed = with(r#"{"verify_state": {"state": "failed"}}"#).verify_state().unwrap();
    assert_eq!(unnamed.state, VerifyOutcome::Failed, "failed by whom does not matter");
    let mut old = parse(&UNSIGNED.replace(",\n  \"unprotected\": {}", ""));
    old.set_notes("new");
    assert_eq!(old.notes(), "new");
}

#[test]
fn wrong_manifests_are_refused_and_the_key_is_named() {
    for (from, to, text) in [
        ("{", "this is not json", "unable to parse backup manifest json - expected ident at line 1 column 2"),
        ("\"host\"", "\"qemu\"", "\"backup-type\": "),
        ("\"host\"", "7", "\"backup-type\": is missing or not a string"),
        ("\"example\"", "\"../x\"", "\"backup-id\": "),
        ("1717597418", "0", "\"backup-time\": "),
        ("1717597418", "1.5", "\"backup-time\": is missing or not an integer"),
        ("1717597418", "99999999999999999999", "\"backup-time\": "),
        ("\"files\"", "\"flies\"", "\"files\": is not an array"),
        ("\"test.img.fidx\"", "\"../test.img.fidx\"", "files[0] - \"../test.img.fidx\" is not an archive name"),
        ("\"test.img.fidx\"", "\"test.img\"", "files[0] - unknown archive type: \"test.img\""),
        ("\"test.img.fidx\"", "\"data.conf.blob\"", "lists data.conf.blob twice"),
        ("\"test.img.fidx\"", "\"index.json.blob\"", "lists index.json.blob"),
        ("\"test.img.fidx\"", "\"client.log.blob\"", "lists client.log.blob"),
        ("4195304", "-1", "files[0] - \"size\" is missing or not a number of bytes"),
        ("4195304", "\"1\"", "\"size\""),
        ("d6d8", "D6D8", "is not a digest"),
        ("d6d8", "d6d", "is not a digest"),
        ("\"none\"", "null", "\"crypt-mode\" is null"),
        ("\"none\"", "\"both\"", "\"crypt-mode\" is \"both\""),
        ("\"signature\": null", "\"signature\": 1", "\"signature\": is neither"),
        ("\"unprotected\": {}", "\"unprotected\": []", "\"unprotected\": is not an object"),
    ] {
        let e = Manifest::parse(UNSIGNED.replacen(from, to, 1).as_bytes()).unwrap_err();
        assert!(e.to_string().contains(text), "{to}: {e}");
        assert_eq!(e.kind(), Kind::Corrupt, "{to}: {e}");
    }
    for json in ["", "[]", "null", "7", "{}"] {
        assert!(Manifest::parse(json.as_bytes()).is_err(), "{json}");
    }
    assert!(Manifest::parse("[".repeat(1_000_000).as_bytes()).is_err(), "nested without end");
    let long = vec![b' '; usize::try_from(MANIFEST_BYTES_MAX).unwrap() + 1];
    assert!(Manifest::parse(&long).unwrap_err().to_string().contains("4194305 bytes"));
    assert!(Manifest::from_blob(&blob::encode(&long, Compression::Try)).is_err(), "a bomb");
}

#[test]
fn every_truncation_is_refused() {
    for json in [UNSIGNED, SIGNED, FAILED, UNKNOWN] {
        let json = json.trim_end();
        for end in 0..json.len() {
            assert!(Manifest::parse(&json.as_bytes()[..end]).is_err(), "cut at {end}");
        }
    }
}

proptest! {
    #[test]
    fn no_flipped_bit_makes_it_panic(at in 0..FAILED.len(), bit in 0u32..8) {
        let mut json = FAILED.as_bytes().to_vec();
        json[at] ^= 1 << bit;
        if let Ok(mut manifest) = Manifest::parse(&json) {
            let _ = manifest.canonical_json();
            manifest.set_notes("x");
            prop_assert_eq!(Manifest::from_blob(&manifest.to_blob()).unwrap(), manifest);
        }
    }

    #[test]
    fn notes_of_any_text_come_back(notes: String) {
        let mut manifest = parse(UNSIGNED);
        manifest.set_notes(&notes);
        let again = Manifest::from_blob(&manifest.to_blob()).unwrap();
        prop_assert_eq!(again.notes(), notes);
    }
}
