//! GPU discovery, memory and launches, on whatever driver is there: none, a GPU's, or the stand-in of kernels/emu.
#![cfg(feature = "cuda")]

use blemish_tensor::cuda::{Buffer, Cuda, Module, NoDevice, devices};
use blemish_tensor::{Device, TensorError};

const EMPTY: Module =
    Module { name: "empty", text: "// stamp\n.version 8.4\n.target sm_75\n.address_size 64\n", tuned: &[] };

fn open() -> Option<Cuda> {
    match Cuda::open(0) {
        Ok(cuda) => Some(cuda),
        Err(why) if std::env::var_os("BLEMISH_REQUIRE_CUDA").is_some() => panic!("{why}"),
        Err(why) => {
            eprintln!("skipped: {why}");
            None
        }
    }
}

#[test]
fn handles_go_between_threads() {
    fn both<T: Send + Sync>() {}
    both::<Cuda>();
    both::<Buffer<f32>>();
    both::<Device>();
}

#[test]
fn discovery_gives_devices_or_a_reason() {
    match devices() {
        Ok(all) => {
            assert!(!all.is_empty() && all[0].ordinal == 0 && all[0].memory > 0 && !all[0].to_string().is_empty());
            let count = all.len();
            assert_eq!(Cuda::open(999).unwrap_err(), NoDevice::Ordinal { wanted: 999, count });
        }
        Err(why) => assert!(!why.to_string().is_empty()),
    }
}

/// Runs the test `name` in a process whose stand-in driver behaves so.
fn foretold(name: &str, mode: &str, wanted: &str) {
    if open().is_none_or(|cuda| cuda.info().name != "emulated") {
        eprintln!("skipped: the stand-in driver is not in use");
        return;
    }
    let test = std::env::current_exe().unwrap();
    let mut child = std::process::Command::new(test);
    child.args(["--exact", name, "--nocapture"]).env("BLEMISH_DRIVER", mode).env("BLEMISH_FORETOLD", wanted);
    assert!(child.status().unwrap().success(), "{mode}");
}

#[test]
fn discovery_gives_what_was_foretold() {
    if let Ok(wanted) = std::env::var("BLEMISH_FORETOLD") {
        let why = Cuda::open(0).unwrap_err();
        assert!(format!("{why:?}").starts_with(&wanted), "{why:?}: {why}");
        assert_eq!(devices().unwrap_err(), why);
    }
}

#[test]
fn an_old_driver_a_failing_one_and_one_without_devices_are_told_apart() {
    let test = "discovery_gives_what_was_foretold";
    foretold(test, "old", "TooOld { found: (11, 8)");
    foretold(test, "broken", "Init {");
    foretold(test, "none", "None");
}

#[test]
fn buffers_hold_what_was_put_in_and_the_budget_is_hard() {
    let Some(cuda) = open() else { return };
    let mut buffer = cuda.upload(&[1u32, 2, 3, 4]).unwrap();
    buffer.write_at(1, &[9, 8]).unwrap();
    assert_eq!(buffer.read().unwrap(), [1, 9, 8, 4]);
    let mut two = [0; 2];
    buffer.read_at(2, &mut two).unwrap();
    assert_eq!(two, [8, 4]);
    assert!(buffer.write_at(3, &[0, 0]).is_err() && buffer.read_at(5, &mut two).is_err());
    buffer.clear().unwrap();
    assert_eq!(buffer.read().unwrap(), [0; 4]);
    let none = cuda.upload::<f32>(&[]).unwrap();
    assert!(none.is_empty() && none.read().unwrap().is_empty());
    assert_eq!(cuda.memory_used(), 20);
    cuda.set_memory_budget(100);
    assert!(matches!(cuda.zeros::<f32>(21), Err(TensorError::Budget { wanted: 84, used: 20, budget: 100 })));
    let rest = cuda.zeros::<f32>(20).unwrap();
    assert_eq!(rest.read().unwrap(), [0.0; 20]);
    drop((buffer, none, rest));
    assert_eq!((cuda.memory_used(), cuda.memory_peak()), (0, 100));
}

#[test]
fn a_kernel_that_is_not_there_is_an_error() {
    let Some(cuda) = open() else { return };
    let error = cuda.launch(EMPTY, "nothing").err().unwrap();
    assert!(matches!(error, TensorError::Launch { .. }), "{error}");
}

#[test]
fn a_feed_gives_in_turn_what_was_sent() {
    let Some(cuda) = open() else { return };
    let parts: Vec<Vec<u32>> = (0..5u32).map(|i| vec![i; 7 - i as usize]).collect();
    let used = cuda.memory_used();
    let mut feed = cuda.feed::<u32>(7).unwrap();
    assert_eq!(cuda.memory_used() - used, 2 * 7 * 4);
    assert!(feed.receive().is_err() && feed.send(&[0; 8]).is_err());
    feed.send(&parts[0]).unwrap();
    for i in 0..parts.len() {
        if let Some(next) = parts.get(i + 1) {
            feed.send(next).unwrap();
            assert!(feed.send(next).is_err(), "both are in use");
        }
        assert_eq!(feed.receive().unwrap().read().unwrap()[..parts[i].len()], parts[i]);
    }
    drop(feed);
    assert_eq!(cuda.memory_used(), used);
}

#[test]
fn events_give_times_and_only_watched_launches_are_noted() {
    let Some(cuda) = open() else { return };
    let (before, after) = (cuda.event().unwrap(), cuda.event().unwrap());
    assert!(before.milliseconds_to(&after).unwrap() >= 0.0);
    assert_eq!(cuda.spans().unwrap(), []);
    cuda.watch();
    assert_eq!(cuda.spans().unwrap(), []);
}

#[test]
fn a_substitute_comes_before_the_first_use() {
    let Some(cuda) = open() else { return };
    cuda.substitute("empty", EMPTY.text).unwrap();
    let error = cuda.substitute("empty", EMPTY.text).unwrap_err();
    assert!(matches!(error, TensorError::Launch { .. }), "{error}");
    assert!(cuda.substitute("zero", "a\0b").is_err());
}

#[test]
fn large_writes_go_through_page_locked_memory() {
    let Some(cuda) = open() else { return };
    // Several pieces and a rest, by one thread and by several; what was written before is not waited for.
    for len in [300_000usize, 1_400_001] {
        let values = |seed: u32| (0..len as u32).map(|i| i.wrapping_mul(2_654_435_761) ^ seed).collect::<Vec<u32>>();
        let mut buffer = cuda.zeros::<u32>(len + 7).unwrap();
        let other = cuda.upload(&values(9)).unwrap();
        buffer.write_at(3, &values(1)).unwrap();
        buffer.write_at(7, &values(2)).unwrap();
        let read = buffer.read().unwrap();
        assert_eq!(read[..3], [0; 3]);
        assert_eq!(read[3..7], values(1)[..4]);
        assert_eq!(read[7..], values(2));
        assert_eq!(other.read().unwrap(), values(9));
    }
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..4).map(|_| scope.spawn(|| cuda.upload(&vec![7u8; 3 << 20]).unwrap())).collect();
        for handle in all {
            assert!(handle.join().unwrap().read().unwrap().iter().all(|v| *v == 7));
        }
    });
}

#[test]
fn large_reads_go_through_page_locked_memory() {
    let Some(cuda) = open() else { return };
    // Whole pieces, several and a rest, by one thread and by several, from any place on.
    for len in [262_144usize, 300_000, 524_288, 1_400_001] {
        let values = |seed: u32| (0..len as u32).map(|i| i.wrapping_mul(2_654_435_761) ^ seed).collect::<Vec<u32>>();
        let mut buffer = cuda.zeros::<u32>(len + 7).unwrap();
        // What was asked for before is waited for, and what comes after is not seen.
        for (seed, at) in [(1, 0), (2, 7), (3, 3)] {
            buffer.write_at(at, &values(seed)).unwrap();
            let mut read = vec![5; len];
            buffer.read_at(at, &mut read).unwrap();
            buffer.clear().unwrap();
            assert_eq!(read, values(seed));
        }
        assert!(buffer.read_at(8, &mut vec![0; len]).is_err());
        assert!(buffer.read().unwrap().iter().all(|v| *v == 0));
    }
    // Reads of one buffer and writes of others, from several threads at a time.
    let values: Vec<u8> = (0..3 << 20).map(|i| (i % 251) as u8).collect();
    let buffer = cuda.upload(&values).unwrap();
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (cuda, values, buffer) = (&cuda, &values, &buffer);
            scope.spawn(move || {
                assert_eq!(&buffer.read().unwrap(), values);
                let own = vec![seed; 2 << 20];
                assert_eq!(cuda.upload(&own).unwrap().read().unwrap(), own);
            });
        }
    });
}

#[test]
fn reads_after_failed_work_are_errors() {
    foretold("reads_on_a_gpu_that_fails", "fails:0", "");
}

#[test]
fn reads_on_a_gpu_that_fails() {
    if std::env::var_os("BLEMISH_FORETOLD").is_none() {
        return;
    }
    for len in [100, 3 << 20] {
        let cuda = Cuda::open(0).unwrap();
        let mut buffer = cuda.scratch::<u8>(len).unwrap();
        for _ in 0..3 {
            buffer.clear().unwrap();
            let error = buffer.read().unwrap_err();
            let TensorError::Cuda { what, .. } = &error else { panic!("{error}") };
            assert!(["reading GPU memory", "waiting for the GPU"].contains(&what.as_str()), "{error}");
        }
        // Nobody waits for another that gave up.
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (buffer.read().is_ok(), cuda.upload(&vec![1u8; len]).is_ok()));
            }
        });
    }
}
