use std::time::Duration;

use super::*;
use crate::bench::job::{IoEngine, SyncLevel, Workload};

fn line(words: &str) -> Result<Plan> {
    plan(words.split_whitespace().map(|word| {
        let word = word.strip_prefix("--").expect("an option");
        match word.split_once('=') {
            Some((name, value)) => Word::Option { name: name.into(), value: Some(value.into()) },
            None => Word::Option { name: word.into(), value: None },
        }
    }))
}

fn file(text: &str) -> Result<Plan> {
    plan([Word::File { path: "a.fio".into(), text: text.into() }])
}

#[test]
fn each_option_lands_in_its_job() {
    let plan = line(
        "--output-format=normal,json+ --status-interval=2s --eta=never --output=o.json --name=a --directory=/d --filename=f \
         --rw=chunk-insert --bs=64k --size=1m --iodepth=4 --ioengine=uring --workers=128 --numjobs=3 --runtime=1m \
         --time_based --ramp-time=500ms --rate=1m --rate_iops=7 --loops=2 --randseed=9 --group_reporting=1 \
         --percentile_list=99:50 --keep --cold --sync=file --buffer_compress_percentage=30",
    )
    .unwrap();
    assert_eq!(plan.run.formats, [Format::Normal, Format::JsonPlus]);
    assert_eq!(plan.run.status_interval, Some(Duration::from_secs(2)));
    assert_eq!((plan.run.eta, plan.run.output), (Eta::Never, Some("o.json".into())));
    let [job] = &plan.jobs[..] else { panic!("one job") };
    assert_eq!((job.name.as_str(), job.directory.to_str(), job.filename.as_deref()), ("a", Some("/d"), Some("f")));
    assert_eq!((job.workload, job.ioengine, job.sync), (Workload::ChunkInsert, IoEngine::Uring, SyncLevel::File));
    assert_eq!((job.bs, job.size, job.nrfiles), (65_536, 1 << 20, 16));
    assert_eq!((job.iodepth, job.workers, job.numjobs, job.loops, job.randseed), (4, 128, 3, 2, 9));
    assert_eq!((job.runtime, job.ramp_time), (Some(Duration::from_secs(60)), Duration::from_millis(500)));
    assert_eq!((job.rate, job.rate_iops, job.compress_percentage), (Some(1 << 20), Some(7), 30));
    assert!(job.time_based && job.group_reporting && job.keep && job.cold && !job.existing);
    assert_eq!(job.percentiles, [50.0, 99.0]);
    assert_eq!(job.given[0], ("name".into(), "a".into()));
    assert!(job.given.contains(&("ramp_time".into(), "500ms".into())) && !job.given.iter().any(|(n, _)| n == "eta"));

    let plan = line("--name=g --directory=/d --rw=gc --garbage=50 --gc-method=atime --again --nrfiles=10").unwrap();
    assert_eq!((plan.jobs[0].garbage_percent, plan.jobs[0].gc_method), (50, crate::store::GcMethod::AccessTime));
    assert!(plan.jobs[0].again);
    let plan = line("--name=b --directory=/d --rw=backup --unchanged --checks=0").unwrap();
    assert!(plan.jobs[0].unchanged && !plan.jobs[0].checks);
    let plan = line("--name=k --directory=/d --rw=known-finish --sorted=0 --existing").unwrap();
    assert!(plan.jobs[0].existing && !plan.jobs[0].sorted);
}

#[test]
fn what_is_left_open_follows_from_the_workload() {
    let job = |rw: &str| line(&format!("--name=a --directory=/d --rw={rw}")).unwrap().jobs.remove(0);
    let append = job("known-append");
    assert_eq!((append.iodepth, append.nrfiles, append.sorted, append.workers), (128, 100_000, false, 64));
    let finish = job("known-finish");
    assert_eq!((finish.iodepth, finish.sorted, finish.percentiles.len()), (1, true, 17));
    assert_eq!((job("backup").size, job("backup").nrfiles, job("backup").checks), (1 << 30, 256, true));
    assert_eq!((job("restore").iodepth, job("chunk-read").nrfiles), (8, 256));
}

#[test]
fn options_before_the_first_name_hold_for_all_and_a_stonewall_begins_a_wave() {
    let plan = line(
        "--directory=/d --nrfiles=10 --name=a --rw=known-append --name=b --rw=chunk-read --bs=1k --size=20k \
         --name=global --loops=3 --stonewall --name=c --rw=verify --nrfiles=5 --name=d --rw=gc",
    )
    .unwrap();
    let shape: Vec<_> = plan.jobs.iter().map(|j| (j.name.as_str(), j.nrfiles, j.loops, j.wave, j.group_id)).collect();
    assert_eq!(shape, [("a", 10, 1, 0, 0), ("b", 20, 1, 0, 0), ("c", 5, 3, 1, 1), ("d", 10, 3, 2, 2)]);
    let globals: Vec<_> = plan.globals.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(globals, ["directory", "nrfiles", "loops", "stonewall"]);
}

#[test]
fn job_files_inherit_and_follow_the_command_line() {
    let text = "; two jobs\n[global]\nbs=1m\n\n[one]\nrw=chunk-read\n# more\n[global]\nbs=2m\ncold\n[two]\nrw=chunk-insert\nstonewall\n";
    let words = [
        Word::Option { name: "directory".into(), value: Some("/d".into()) },
        Word::File { path: "a.fio".into(), text: text.into() },
    ];
    let plan = plan(words).unwrap();
    let shape: Vec<_> = plan.jobs.iter().map(|j| (j.name.as_str(), j.bs, j.cold, j.wave)).collect();
    assert_eq!(shape, [("one", 1 << 20, false, 0), ("two", 2 << 20, true, 1)]);
    assert!(plan.jobs.iter().all(|job| job.directory.to_str() == Some("/d")));
}

#[test]
fn what_is_wrong_is_named_with_its_place_and_what_to_do() {
    let base = "--name=a --directory=/d";
    for (words, said) in [
        ("--nam=a".into(), "--nam: unknown option \"nam\": did you mean \"name\"?"),
        (String::new(), "no job: give one a name"),
        ("--name=a --directory=/d".into(), "job \"a\": rw is missing"),
        ("--name=a --rw=gc".into(), "job \"a\": directory is missing"),
        (format!("{base} --rw=randread"), "--rw: \"randread\" is none of known-append, known-finish"),
        (format!("{base} --rw=gc --iodepth=0"), "--iodepth: \"0\" is no whole number from 1 to 65536"),
        (format!("{base} --rw=gc --workers=257"), "--workers: \"257\" is no whole number from 1 to 256"),
        (format!("{base} --rw=gc --workers=0"), "--workers: \"0\" is no whole number from 1 to 256"),
        (format!("{base} --rw=gc --iodepth=4"), "iodepth means nothing to rw=gc: it belongs to known-append"),
        (format!("{base} --rw=gc --runtime=0"), "runtime=0 measures nothing"),
        (format!("{base} --rw=gc --time_based"), "time_based needs runtime"),
        (format!("{base} --rw=gc --runtime"), "--runtime: needs a value"),
        (format!("{base} --rw=gc --existing"), "existing writes nothing, and rw=gc has to"),
        (format!("{base} --rw=backup --existing"), "existing writes nothing, and rw=backup has to"),
        (format!("{base} --rw=chunk-insert --existing"), "existing writes nothing, and rw=chunk-insert has to"),
        (format!("{base} --rw=chunk-read --existing --keep"), "leave out one of them"),
        (format!("{base} --rw=backup --keep"), "a first backup needs one that is"),
        (format!("{base} --rw=gc --workdir=/d"), "workdir means nothing to rw=gc: it belongs to backup"),
        (format!("{base} --rw=verify --bs=0"), "bs=0: a chunk has 1 to"),
        (format!("{base} --rw=verify --bs=17m"), "a chunk has 1 to 16777216 bytes"),
        (format!("{base} --rw=verify --size=5m"), "size=5242880 is no multiple of bs=4194304: make it 8388608"),
        (format!("{base} --rw=verify --size=8m --nrfiles=3"), "are 2 chunks, and nrfiles says 3"),
        (format!("{base} --rw=verify --nrfiles=1099511627776 --bs=16m"), "more than any disk holds"),
        (format!("{base} --rw=verify --filename=../x"), "filename is a name within directory"),
        (format!("{base} --rw=chunk-read --rate=0"), "rate=0 lets nothing through"),
        (
            format!("{base} --rw=verify --output-format=terse"),
            "--output-format: \"terse\" is none of normal, json, json+",
        ),
    ] {
        let error = line(&words).unwrap_err().to_string();
        assert!(error.contains(said), "{words}: {error}");
    }
    for (text, said) in [
        ("[a]\nrwx=gc\n", "a.fio:2: unknown option \"rwx\" in [a]: did you mean \"rw\"?"),
        ("[global]\nnrfile=1\n", "a.fio:2: unknown option \"nrfile\" in [global]: did you mean \"nrfiles\"?"),
        ("rw=gc\n", "a.fio:1: \"rw\" stands before the first [section]"),
        ("[a\n", "a.fio:1: \"[a\" is no section"),
        ("\n[a]\nsize=big\n", "a.fio:3: size: \"big\" is no size"),
        ("[a]\noutput=x\n", "a.fio:2: output concerns the whole run: give it on the command line, as --output"),
        ("[a]\nrw=gc\n[b]\nrw=gc\ndirectory=/d", "a.fio:1 - job \"a\": directory is missing"),
        ("[global]\nrw=gc\n", "no job"),
    ] {
        let error = file(text).unwrap_err().to_string();
        assert!(error.contains(said), "{text:?}: {error}");
    }
}
