use proptest::prelude::*;

use super::*;

fn header() -> Header {
    Header { boot: [7; 16], device: 1, mount: 2, chunks_ino: 3, written: 1_717_600_000 }
}

fn dir(prefix: u16, chunks: u64) -> KnownDir {
    let time = |secs| FileTime { secs, nanos: 5 };
    let stamp = Stamp { device: 1, ino: u64::from(prefix) + 9, mtime: time(-1), ctime: time(1 << 40) };
    let prints: Vec<u64> = (0..chunks).map(|n| n << 2).collect();
    KnownDir {
        prefix,
        listed: 77,
        stamp,
        measured: u32::try_from(chunks / 2).unwrap(),
        measured_bytes: 1 << 50,
        prints,
    }
}

/// All blocks of these directories.
fn blocks(dirs: &[KnownDir]) -> Vec<Vec<u8>> {
    let mut writer = BlockWriter::default();
    let mut blocks: Vec<Vec<u8>> = dirs.iter().filter_map(|dir| writer.add(dir)).collect();
    blocks.extend(writer.finish());
    blocks
}

fn decode(block: &[u8], after: Option<u16>) -> Option<Vec<KnownDir>> {
    let (head, bytes) = block.split_first_chunk()?;
    (block_bytes(head)? == bytes.len()).then(|| decode_block(head, bytes, 1, after)).flatten()
}

#[test]
fn a_file_counts_for_the_same_mount_of_the_same_boot_only() {
    let now = header();
    let bytes = now.encode();
    assert_eq!(now.objection(&bytes), None);
    assert_eq!(Header { written: now.written + 1, ..now }.objection(&bytes), None, "time passes");
    for (other, why) in [
        (Header { boot: [8; 16], ..now }, "started anew"),
        (Header { device: 9, ..now }, "mounted anew"),
        (Header { mount: 9, ..now }, "mounted anew"),
        (Header { chunks_ino: 9, ..now }, "mounted anew"),
        (Header { written: now.written - 1, ..now }, "set back"),
    ] {
        assert!(other.objection(&bytes).unwrap().contains(why), "{other:?}");
    }
    for at in 0..HEADER_BYTES {
        let mut torn = bytes;
        torn[at] ^= 0x40;
        assert!(now.objection(&torn).is_some(), "byte {at}");
    }
    let mount = Mount { boot: [1; 16], device: 5, id: None };
    assert_eq!(Header::new(&mount, 6, 7, 8), Header { boot: [1; 16], device: 5, mount: 6, chunks_ino: 7, written: 8 });
    assert_eq!(Header::new(&Mount { id: Some(4), ..mount }, 6, 7, 8).mount, 4);
}

#[test]
fn what_was_changed_just_before_is_not_kept() {
    let stamp = |mtime: i64, ctime: i64| {
        let time = |secs| FileTime { secs, nanos: 999_999_999 };
        Stamp { mtime: time(mtime), ctime: time(ctime), ..Stamp::default() }
    };
    for (mtime, ctime, settled) in [(97, 97, true), (98, 97, false), (97, 98, false), (100, 0, false), (200, 97, false)]
    {
        assert_eq!(is_settled(&stamp(mtime, ctime), 100), settled, "{mtime} {ctime}");
    }
}

#[test]
fn a_directory_that_does_not_show_what_was_made_in_it_is_not_believed() {
    let stamp = |mtime: i64, ctime: i64| {
        let time = |secs| FileTime { secs, nanos: 0 };
        Stamp { mtime: time(mtime), ctime: time(ctime), ..Stamp::default() }
    };
    for (mtime, ctime, honest) in [(100, 100, true), (98, 98, true), (97, 100, false), (100, 97, false), (0, 0, false)]
    {
        assert_eq!(is_honest(&stamp(mtime, ctime), 100), honest, "{mtime} {ctime}");
    }
}

#[test]
fn each_directory_comes_due_within_thirty_days_and_not_all_at_once() {
    const DAY: i64 = 86_400;
    let known = |prefix| KnownDir { prefix, listed: 1000, ..KnownDir::default() };
    let due_day = |prefix| (0..40).find(|day| known(prefix).is_due(1000 + day * DAY)).unwrap();
    let mut by_day = std::collections::BTreeMap::new();
    for prefix in 0..=u16::MAX {
        *by_day.entry(due_day(prefix)).or_insert(0) += 1;
    }
    assert_eq!((by_day.keys().min(), by_day.keys().max()), (Some(&15), Some(&30)));
    assert!(by_day.values().all(|dirs| *dirs <= 65_536 / 15 + 1), "{by_day:?}");
    assert!(known(0).is_due(999), "read in the future");
}

#[test]
fn what_was_written_is_read_and_nothing_else() {
    let dirs = [dir(0, 0), dir(3, 200), dir(255, 1), dir(256, 2), dir(65_535, 7)];
    let blocks = blocks(&dirs);
    assert_eq!(blocks.len(), 3);
    let read: Vec<KnownDir> = blocks.iter().flat_map(|block| decode(block, None).unwrap()).collect();
    assert_eq!(read, dirs);
    assert_eq!(decode(&blocks[1], Some(255)).unwrap().len(), 1);
    assert_eq!(decode(&blocks[1], Some(256)), None, "it is not behind that");
    for block in &blocks {
        for cut in 0..block.len() {
            assert_eq!(decode(&block[..cut], None), None, "{cut}");
        }
        for at in 0..block.len() {
            let mut torn = block.clone();
            torn[at] ^= 1;
            assert_eq!(decode(&torn, None), None, "byte {at}");
        }
    }
    assert_eq!(block_bytes(&[0xff; BLOCK_HEAD_BYTES]), None);
}

#[test]
fn a_directory_costs_little_and_one_that_does_not_fit_is_left_out() {
    let block = blocks(&[dir(1, 0), dir(2, 100)]).remove(0);
    assert_eq!(block.len(), BLOCK_HEAD_BYTES + 2 * 58 + 800);
    let huge = KnownDir { prints: vec![0; BLOCK_BYTES_MAX / 8], ..dir(2, 0) };
    let read = decode(&blocks(&[dir(1, 1), huge, dir(3, 1)])[0], None).unwrap();
    assert_eq!(read, [dir(1, 1), dir(3, 1)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn bytes_of_anybody_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), count in 0..5_u32) {
        // With a checksum that is right.
        let mut head = [0; BLOCK_HEAD_BYTES];
        head[..4].copy_from_slice(&u32::try_from(bytes.len()).unwrap().to_le_bytes());
        head[4..8].copy_from_slice(&count.to_le_bytes());
        let crc = block_crc(&head[..8], &bytes);
        head[8..].copy_from_slice(&crc.to_le_bytes());
        if let Some(dirs) = decode_block(&head, &bytes, 1, None) {
            prop_assert_eq!(dirs.len() as u64, u64::from(count));
            prop_assert_eq!(&blocks(&dirs)[0][BLOCK_HEAD_BYTES..], &bytes[..]);
        }
    }
}
