use super::*;
use crate::types::FIXED_CHUNK_BYTES;

const SNAPSHOT: &str = "host/bad/2024-06-05T14:23:38Z";
const FULL: u32 = FIXED_CHUNK_BYTES;

fn session(base: bool) -> Session {
    let base_time = base.then_some(EpochSecs(1_717_597_418));
    let snapshot = SNAPSHOT.parse().unwrap();
    Session::new(About { snapshot, snapshot_path: format!("/d/{SNAPSHOT}"), base_time })
}

fn digest(n: u8) -> Digest {
    Digest([n; 32])
}

fn size(bytes: u32) -> ChunkSize {
    ChunkSize::new(u64::from(bytes)).unwrap()
}

fn wid(n: u64) -> WriterId {
    WriterId::new(n).unwrap()
}

fn name(text: &str) -> ArchiveName {
    text.parse().unwrap()
}

/// What a client sends in these tests, in a line each.
enum Send {
    Fixed(&'static str, u64),
    Reuse(&'static str),
    Dynamic(&'static str),
    /// Writer, digest, size.
    Chunk(WriterKind, u64, u8, u32),
    /// Writer, chunks with their offsets.
    Append(WriterKind, u64, Vec<(u8, u64)>),
    /// Writer, count, size.
    Close(WriterKind, u64, u64, u64),
    Blob(&'static str, u64),
    Time,
    Previous(&'static str),
    Finish,
}
use Send::{Append as Put, Blob, Chunk, Close as End, Dynamic, Finish, Fixed, Previous, Reuse, Time};
use WriterKind::{Dynamic as D, Fixed as F};

fn action(send: Send) -> Action {
    let create_fixed = |archive: &str, size_bytes, reuse_csum| {
        Action::CreateIndex(CreateIndex::Fixed { archive: archive.into(), size_bytes, reuse_csum })
    };
    match send {
        Fixed(archive, size_bytes) => create_fixed(archive, size_bytes, None),
        Reuse(archive) => create_fixed(archive, 2 * u64::from(FULL), Some("00".repeat(32))),
        Dynamic(archive) => Action::CreateIndex(CreateIndex::Dynamic { archive: archive.into() }),
        Chunk(kind, id, n, bytes) => {
            Action::Chunk(ChunkUpload { kind, wid: wid(id), digest: digest(n), size: size(bytes), encoded_bytes: 99 })
        }
        Put(kind, id, entries) => {
            let (digests, offsets) = entries.iter().map(|(n, offset)| (digest(*n), *offset)).unzip();
            Action::Append(Append { kind, wid: wid(id), digests, offsets })
        }
        End(kind, id, chunk_count, size_bytes) => {
            Action::Close(Close { kind, wid: wid(id), chunk_count, size_bytes, csum: digest(0xcc) })
        }
        Blob(file_name, encoded_bytes) => Action::Blob { file_name: file_name.into(), encoded_bytes },
        Time => Action::PreviousBackupTime,
        Previous(archive) => Action::Previous(name(archive)),
        Finish => Action::Finish,
    }
}

/// Plays a disk on which everything succeeds.
fn play(session: &mut Session, send: Send) -> Result<Reply> {
    match session.on(action(send))? {
        Step::Reply(reply) => Ok(reply),
        Step::Do(effect) => match effect {
            Effect::ServePrevious(_) | Effect::Speedtest => Ok(Reply::Null),
            Effect::StoreBlob { name, encoded_bytes } if name.is_manifest() => {
                let bytes = vec![0; usize::try_from(encoded_bytes).unwrap()];
                Ok(session.hold_manifest(&name, bytes.into()))
            }
            Effect::StoreBlob { name, encoded_bytes } => Ok(session.stored_blob(name, encoded_bytes, digest(1))),
            Effect::CreateIndex(plan) => Ok(Reply::Writer(session.created(plan))),
            Effect::StoreChunk(upload) => session.registered(&upload, 50, false),
            Effect::Append(plan) => {
                session.append_still_fits(&plan)?;
                Ok(session.appended(plan))
            }
            Effect::Close(plan) => Ok(session.closed(&plan)),
            Effect::Discard(_, error) => Err(error),
            Effect::Finish(_) => Ok(session.finished()),
        },
    }
}

/// Plays requests against their expected answers: `Ok` a reply, `Err` the text of an error.
fn expect(session: &mut Session, steps: Vec<(Send, Result<Reply, &str>)>) {
    for (i, (send, want)) in steps.into_iter().enumerate() {
        let got = play(session, send).map_err(|e| e.to_string());
        assert_eq!(got, want.map_err(str::to_owned), "step {i}");
    }
}

const OK: Result<Reply, &str> = Ok(Reply::Null);

fn writer(n: u64) -> Result<Reply, &'static str> {
    Ok(Reply::Writer(wid(n)))
}

fn stored(n: u8) -> Result<Reply, &'static str> {
    Ok(Reply::Stored(digest(n)))
}

#[test]
fn without_a_base_nothing_can_be_reused() {
    expect(
        &mut session(false),
        vec![
            (Time, Ok(Reply::PreviousBackupTime(None))),
            (Previous("index.json.blob"), Err("no valid previous backup")),
            (Reuse("a.img.fidx"), Err("cannot reuse index - no valid previous backup exists")),
            (Finish, Err("backup does not contain valid files (file count == 0)")),
        ],
    );
    expect(
        &mut session(true),
        vec![
            (Time, Ok(Reply::PreviousBackupTime(Some(EpochSecs(1_717_597_418))))),
            (Previous("index.json.blob"), OK),
            (Reuse("a.img.fidx"), writer(1)),
        ],
    );
}

/// Golden trace 12h.
#[test]
fn uploads_are_judged_as_recorded() {
    let end_chunks = Err("fixed writer '1' - detected multiple end chunks (chunk size too small)");
    expect(
        &mut session(false),
        vec![
            (Fixed("a.img.didx", 1), Err("wrong archive extension: 'a.img.didx'")),
            (Dynamic("a.fidx"), Err("wrong archive extension: 'a.fidx'")),
            (Fixed("a.img.fidx", 9_000_000), writer(1)),
            (Dynamic("b.pxar.didx"), writer(2)),
            (Dynamic("b.pxar.didx"), writer(3)),
            (Chunk(F, 1, 1, 70_000), stored(1)),
            (Chunk(F, 2, 1, 70_000), Err("fixed writer '2' not registered")),
            (Chunk(D, 1, 1, 70_000), Err("dynamic writer '1' not registered")),
            (Chunk(F, 9, 1, 70_000), Err("fixed writer '9' not registered")),
            (Chunk(F, 1, 2, FULL + 1), Err("fixed writer 'a.img.fidx' - got large chunk (4194305 > 4194304")),
            (Chunk(D, 2, 2, FULL + 1), stored(2)),
            (Chunk(F, 1, 3, 50_000), end_chunks.clone()),
            (Chunk(F, 1, 1, 70_000), end_chunks),
            (Chunk(D, 2, 1, 70_000), stored(1)),
            (Put(D, 2, vec![(1, 0)]), OK),
        ],
    );
}

/// Golden trace 12i, except that an append that fails leaves nothing behind (design §3).
#[test]
fn appends_are_judged_as_recorded_and_happen_whole_or_not_at_all() {
    let unknown = digest(0xab);
    let no_such = format!("no such chunk {unknown}");
    let no_such = || Err(no_such.as_str());
    let mut session = session(false);
    expect(
        &mut session,
        vec![
            (Fixed("a.img.fidx", 9_000_000), writer(1)),
            (Dynamic("b.pxar.didx"), writer(2)),
            (Put(F, 1, vec![(0xab, 0)]), no_such()),
            (Put(D, 2, vec![(0xab, 0)]), no_such()),
            (Chunk(D, 2, 1, FULL), stored(1)),
            (Put(F, 1, vec![(1, 0)]), OK),
            (
                Put(D, 2, vec![(1, 1)]),
                Err("dynamic writer 'b.pxar.didx' append chunk failed - got strange chunk offset (0 != 1)"),
            ),
            (Put(D, 2, vec![(1, 0), (1, 4_194_304), (0xab, 8_388_608)]), no_such()),
            // The recorded server had kept the first two.
            (
                Put(D, 2, vec![(1, 8_388_608)]),
                Err("dynamic writer 'b.pxar.didx' append chunk failed - got strange chunk offset (0 != 8388608)"),
            ),
            (Put(D, 2, vec![(1, 0)]), OK),
            (Put(F, 1, vec![(1, 1)]), Err("got unaligned chunk (pos = 1)")),
            (Put(F, 1, vec![(1, 4096)]), Err("got unaligned chunk (pos = 4096)")),
            (Put(F, 1, vec![(1, 8_388_608)]), Err("chunk data exceeds size (12582912 >= 9000000)")),
            (Put(F, 1, vec![(1, u64::MAX)]), Err("chunk data exceeds size (18446744073709551615 >= 9000000)")),
            (Chunk(F, 1, 2, 70_000), stored(2)),
            (Put(F, 1, vec![(2, 4_194_304)]), Err("chunk with unexpected length (70000 != 4194304")),
            (Put(F, 1, vec![(2, 8_388_608)]), Err("chunk with unexpected length (70000 != 4194304")),
            (Put(F, 1, vec![(1, 4_194_304), (1, 0)]), OK),
            (Put(F, 99, vec![(1, 0)]), Err("fixed writer '99' not registered")),
            (Put(F, 2, vec![(1, 0)]), Err("fixed writer '2' not registered")),
            (Put(F, 1, vec![]), OK),
        ],
    );
    let (kind, wid) = (F, wid(1));
    let uneven = Action::Append(Append { kind, wid, digests: vec![digest(1)], offsets: vec![] });
    assert_eq!(session.on(uneven).unwrap_err().to_string(), "offset list has wrong length (0 != 1)");
}

/// Golden trace 12j.
#[test]
fn closing_is_judged_as_recorded_and_a_wrong_count_consumes_the_writer() {
    let chunk = u64::from(FULL);
    let mut session = session(false);
    expect(
        &mut session,
        vec![
            (Dynamic("a2.pxar.didx"), writer(1)),
            (Chunk(D, 1, 1, FULL), stored(1)),
            (Put(D, 1, vec![(1, 0)]), OK),
            (End(D, 1, 2, chunk), Err("dynamic writer 'a2.pxar.didx' close failed - unexpected chunk count (1 != 2)")),
            (End(D, 1, 1, chunk), Err("dynamic writer '1' not registered")),
            (Dynamic("a3.pxar.didx"), writer(2)),
            (Put(D, 2, vec![(1, 0)]), OK),
            (
                End(D, 2, 1, chunk + 1),
                Err("dynamic writer 'a3.pxar.didx' close failed - unexpected file size (4194304 != 4194305)"),
            ),
            (Fixed("a5.img.fidx", 2 * chunk), writer(3)),
            (Put(F, 3, vec![(1, 0)]), OK),
            (End(F, 3, 1, 2 * chunk), Err("fixed writer 'a5.img.fidx' close failed - unexpected chunk count (2 != 1)")),
            (Fixed("a7.img.fidx", 2 * chunk), writer(4)),
            (Put(F, 4, vec![(1, 0), (1, chunk)]), OK),
            (
                End(F, 4, 2, chunk),
                Err("fixed writer 'a7.img.fidx' close failed - unexpected file size (8388608 != 4194304)"),
            ),
            (End(F, 99, 2, chunk), Err("fixed writer '99' not registered")),
            (Fixed("a6.img.fidx", 2 * chunk), writer(5)),
            (Put(F, 5, vec![(1, 0)]), OK),
            (Put(F, 5, vec![(1, 0)]), OK),
            (End(F, 5, 2, 2 * chunk), OK),
            (Fixed("a9.img.fidx", 2 * chunk), writer(6)),
            (Put(F, 6, vec![(1, chunk), (1, 0)]), OK),
            (End(F, 6, 2, 2 * chunk), OK),
        ],
    );
    assert_eq!(session.files[&name("a6.img.fidx")].unfilled_slots, 1);
    assert_eq!(session.files[&name("a9.img.fidx")].unfilled_slots, 0);
    // Only closed writers count; a2, a3, a5 and a7 do not.
    assert_eq!((session.file_count, session.stats), (2, UploadStats::default()));
}

#[test]
fn a_copied_index_needs_no_append_and_its_size_is_not_compared() {
    let mut session = session(true);
    expect(
        &mut session,
        vec![(Reuse("a.img.fidx"), writer(1)), (End(F, 1, 0, 0), OK), (Blob("index.json.blob", 10), OK), (Finish, OK)],
    );
    assert_eq!(session.files[&name("a.img.fidx")].size_bytes, 2 * u64::from(FULL));
    assert!(session.is_finished());
}

/// Golden trace 12j, second half.
#[test]
fn finish_wants_closed_writers_files_and_a_manifest_and_then_refuses_all() {
    let finished = "backup already marked as finished.";
    let mut session = session(false);
    expect(
        &mut session,
        vec![
            (Blob("x.conf", 17), Err("wrong blob file extension: 'x.conf'")),
            (Blob("x.img.fidx", 17), Err("wrong blob file extension: 'x.img.fidx'")),
            (Blob("x.conf.blob", 17), OK),
            (Blob("x.conf.blob", 17), OK),
            (Dynamic("a.pxar.didx"), writer(1)),
            (Chunk(D, 1, 1, 7), stored(1)),
            (Put(D, 1, vec![(1, 0)]), OK),
            (Finish, Err("found open index writer - unable to finish backup")),
            (End(D, 1, 1, 7), OK),
            (
                Finish,
                Err("unable to update manifest blob - unable to load blob \
                     '\"/d/host/bad/2024-06-05T14:23:38Z/index.json.blob\"' - No such file or directory (os error 2)"),
            ),
            (Blob("index.json.blob", 20), OK),
            (Finish, OK),
            (Finish, Err(finished)),
            (Time, Ok(Reply::PreviousBackupTime(None))),
            (Blob("late.conf.blob", 16), Err(finished)),
            (Dynamic("late.pxar.didx"), Err(finished)),
            (Chunk(D, 1, 1, 7), Err(finished)),
            (Put(D, 1, vec![]), Err(finished)),
            (End(D, 1, 1, 7), Err(finished)),
        ],
    );
    // Blobs count with their encoded length and nothing else (trace 14c: 3 chunks of 4 MiB and 283 bytes of manifest).
    assert_eq!(
        session.stats,
        UploadStats { count: 1, size_bytes: 7 + 17 + 17 + 20, compressed_bytes: 50, duplicates: 0 }
    );
    assert!(session.end());
    assert_eq!(session.on(Action::Finish).unwrap_err().kind(), Kind::Closed);
}

#[test]
fn a_finish_that_fails_leaves_the_session_open_and_one_under_way_shuts_it() {
    let mut session = session(false);
    play(&mut session, Blob("index.json.blob", 20)).unwrap();
    let Ok(Step::Do(Effect::Finish(_))) = session.on(Action::Finish) else { panic!("finish is due") };
    for send in [Finish, Blob("x.conf.blob", 17), Dynamic("a.pxar.didx")] {
        assert_eq!(session.on(action(send)).unwrap_err().to_string(), "backup is being finished.");
    }
    session.finish_failed();
    expect(&mut session, vec![(Blob("index.json.blob", 20), OK), (Finish, OK)]);
    assert!(session.is_finished());
}

#[test]
fn a_session_that_ended_during_finish_stays_ended() {
    let mut session = session(false);
    play(&mut session, Blob("index.json.blob", 20)).unwrap();
    let Ok(Step::Do(Effect::Finish(_))) = session.on(Action::Finish) else { panic!("finish is due") };
    assert!(!session.end());
    session.finish_failed();
    assert_eq!(play(&mut session, Blob("x.conf.blob", 17)).unwrap_err().kind(), Kind::Closed);
}

fn append_plan(session: &mut Session, send: Send) -> AppendPlan {
    match session.on(action(send)) {
        Ok(Step::Do(Effect::Append(plan))) => plan,
        other => panic!("{other:?}"),
    }
}

#[test]
fn appends_in_flight_keep_the_writer_open_and_a_cancelled_one_leaves_no_trace() {
    let chunk = u64::from(FULL);
    let mut session = session(false);
    expect(
        &mut session,
        vec![
            (Dynamic("b.pxar.didx"), writer(1)),
            (Fixed("a.img.fidx", 2 * chunk), writer(2)),
            (Chunk(D, 1, 1, FULL), stored(1)),
        ],
    );
    let first = append_plan(&mut session, Put(D, 1, vec![(1, 0), (1, chunk)]));
    assert_eq!(first.digests, [digest(1)], "each chunk is asked for once");
    assert_eq!(
        first.entries,
        super::super::writers::Entries::Dynamic { first: 0, entries: vec![(chunk, digest(1)), (2 * chunk, digest(1))] }
    );
    // Planned before the first is written: whichever comes second finds another end.
    let second = append_plan(&mut session, Put(D, 1, vec![(1, 0)]));
    let running = "dynamic writer 'b.pxar.didx' close failed - 2 appends are still running";
    expect(&mut session, vec![(End(D, 1, 2, 2 * chunk), Err(running))]);
    session.append_still_fits(&first).unwrap();
    session.appended(first);
    assert_eq!(
        session.append_still_fits(&second).unwrap_err().to_string(),
        "dynamic writer 'b.pxar.didx' append chunk failed - got strange chunk offset (8388608 != 0)"
    );
    session.append_failed(second);
    // Slots of a fixed index do not depend on each other.
    let one = append_plan(&mut session, Put(F, 2, vec![(1, chunk)]));
    let other = append_plan(&mut session, Put(F, 2, vec![(1, 0)]));
    session.append_still_fits(&other).unwrap();
    session.appended(other);
    session.append_still_fits(&one).unwrap();
    session.appended(one);
    expect(&mut session, vec![(End(D, 1, 2, 2 * chunk), OK), (End(F, 2, 2, 2 * chunk), OK)]);
}

#[test]
fn one_name_is_stored_by_one_request_at_a_time() {
    let mut session = session(false);
    let Ok(Step::Do(Effect::StoreBlob { name, .. })) = session.on(action(Blob("x.conf.blob", 17))) else { panic!() };
    let busy = Err("'x.conf.blob' is being stored by another request");
    expect(&mut session, vec![(Blob("x.conf.blob", 17), busy), (Blob("index.json.blob", 9), OK)]);
    expect(&mut session, vec![(Finish, Err("'x.conf.blob' is still being stored - unable to finish backup"))]);
    session.blob_failed(&name);
    expect(&mut session, vec![(Blob("x.conf.blob", 17), OK), (Finish, OK)]);
}

#[test]
fn writer_numbers_are_given_in_order_of_success_and_end_at_256() {
    let mut session = session(false);
    let Ok(Step::Do(Effect::CreateIndex(slow))) = session.on(action(Dynamic("slow.didx"))) else { panic!() };
    expect(&mut session, vec![(Dynamic("fast.didx"), writer(1))]);
    session.create_failed();
    expect(&mut session, vec![(Dynamic("next.didx"), writer(2))]);
    assert_eq!(slow.archive.as_str(), "slow.didx");
    for n in 3..=256 {
        assert_eq!(play(&mut session, Dynamic("x.didx")).unwrap(), Reply::Writer(wid(n)));
    }
    expect(&mut session, vec![(Dynamic("x.didx"), Err("a session has at most 256 index writers"))]);
}

#[test]
fn an_index_being_made_is_an_open_one() {
    let mut session = session(false);
    play(&mut session, Blob("index.json.blob", 9)).unwrap();
    let Ok(Step::Do(Effect::CreateIndex(_))) = session.on(action(Dynamic("slow.didx"))) else { panic!() };
    expect(&mut session, vec![(Finish, Err("found open index writer - unable to finish backup"))]);
}

#[test]
fn images_and_files_have_bounds() {
    let mut session = session(false);
    let too_long = "an image has at most 1125899906842624 bytes (got 1125899906842625)";
    expect(
        &mut session,
        vec![
            (Fixed("a.img.fidx", IMAGE_BYTES_MAX + 1), Err(too_long)),
            (Fixed("a.img.fidx", IMAGE_BYTES_MAX), writer(1)),
        ],
    );
    for n in 0..FILES_MAX {
        session
            .files
            .insert(name(&format!("{n}.blob")), StoredFile { csum: digest(1), size_bytes: 1, unfilled_slots: 0 });
    }
    let full = "a snapshot has at most 1024 files";
    expect(
        &mut session,
        vec![(Blob("new.blob", 17), Err(full)), (Dynamic("new.didx"), Err(full)), (Blob("7.blob", 17), OK)],
    );
}

#[test]
fn the_base_is_blamed_for_what_it_lent_and_for_nothing_else() {
    let mut session = session(true);
    session.register_base(&[(digest(1), size(FULL)), (digest(3), size(FULL))]).unwrap();
    play(&mut session, Dynamic("b.pxar.didx")).unwrap();
    for n in [2, 3] {
        play(&mut session, Chunk(D, 1, n, FULL)).unwrap();
    }
    let sources = |session: &Session| [1, 2, 3, 4].map(|n| session.source_of(&digest(n)));
    assert_eq!(sources(&session), [Source::Base, Source::Session, Source::Base, Source::Session]);
    play(&mut session, Reuse("a.img.fidx")).unwrap();
    assert_eq!(sources(&session), [Source::Base, Source::Session, Source::Base, Source::Base]);
    assert_eq!(session.known_chunks().0, 3);
    session.end();
    assert!(session.register_base(&[]).is_err());
}
