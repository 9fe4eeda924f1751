//! The procedural demo set.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use blemish_core::{Progress, Session};
use blemish_datasets::demo::{self, DemoSpec};
use blemish_datasets::{DataSpec, Dataset, decode, read_mask};

fn spec() -> DemoSpec {
    DemoSpec { good_train: 3, good_test: 1, bad_test: 8, size: 96, seed: 5 }
}

fn contents(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(root).expect("below").to_path_buf(), fs::read(&path).expect("a file"));
            }
        }
    }
    found
}

#[test]
fn the_same_seed_gives_the_same_bytes_with_any_number_of_threads() {
    let folder = tempfile::tempdir().expect("a folder");
    let draw = |name: &str, threads, spec: &DemoSpec| {
        let root = folder.path().join(name);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| demo::write(&root, spec, &Session::quiet(0))).expect("a demo set");
        contents(&root)
    };
    let one = draw("one", 1, &spec());
    assert_eq!(one, draw("three", 3, &spec()));
    let other = draw("other", 2, &DemoSpec { seed: 6, ..spec() });
    assert!(one.keys().eq(other.keys()) && one.iter().filter(|(k, v)| other[*k] == **v).count() == 0);
    // More pictures leave the others as they are.
    let more = draw("more", 2, &DemoSpec { good_train: 4, ..spec() });
    assert!(one.iter().filter(|(k, _)| k.ends_with("png")).all(|(k, v)| more[k] == *v) && more.len() == one.len() + 2);
    assert_eq!(one.len(), 1 + 2 * (3 + 1 + 2 * 8));
}

#[test]
fn it_reads_back_as_a_data_set_with_exact_masks() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("demo");
    demo::write(&root, &spec(), &Session::quiet(0)).expect("a demo set");
    for category in demo::CATEGORIES {
        let spec = DataSpec { data: Some(root.clone()), category: Some(category.into()), ..DataSpec::default() };
        let data = Dataset::open(&spec, 0).expect("a data set");
        assert_eq!((data.train.len() + data.val.len(), data.test.len()), (3, 9));
        for sample in data.test.iter().filter(|s| s.good == Some(false)) {
            assert_eq!(decode(&sample.path).expect("a picture").dim(), (96, 96, 3));
            let mask = read_mask(sample.mask.as_ref().expect("a mask")).expect("a mask");
            let area = mask.iter().filter(|m| **m).count();
            assert!(mask.dim() == (96, 96) && (1..96 * 96 / 4).contains(&area), "{}: {area}", sample.path.display());
        }
    }
}

#[test]
fn other_files_are_left_alone_and_an_older_set_is_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("demo");
    let small = DemoSpec { good_train: 1, good_test: 0, bad_test: 0, size: 64, seed: 1 };
    fs::create_dir(&root).expect("a folder");
    demo::write(&root, &small, &Session::quiet(0)).expect("an empty folder is fine");
    let first = contents(&root);
    // The same again: nothing is drawn.
    fs::write(root.join("extra.txt"), "x").expect("writing");
    demo::write(&root, &small, &Session::quiet(0)).expect("it is there");
    assert!(root.join("extra.txt").exists());
    demo::write(&root, &DemoSpec { seed: 2, ..small.clone() }, &Session::quiet(0)).expect("replaced");
    assert!(!root.join("extra.txt").exists() && contents(&root) != first);
    let other = folder.path().join("other");
    fs::create_dir(&other).expect("a folder");
    fs::write(other.join("mine.txt"), "x").expect("writing");
    let e = demo::write(&other, &small, &Session::quiet(0)).expect_err("something else is there").to_string();
    assert!(e.contains("is no demo set") && contents(&other).len() == 1, "{e}");
    assert!(demo::write(&root, &DemoSpec { size: 5, ..small }, &Session::quiet(0)).is_err());
}

#[test]
fn an_interruption_leaves_nothing_behind() {
    struct Stop;
    impl Progress for Stop {
        fn begin(&self, _: &'static str, _: usize) {}
        fn advance(&self, _: &'static str, _: usize, _: usize) {}
        fn end(&self, _: &'static str) {}
        fn interrupted(&self) -> bool {
            true
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let session = Session { progress: &Stop, ..Session::quiet(0) };
    let e = demo::write(&folder.path().join("demo"), &spec(), &session).expect_err("stopped").to_string();
    assert_eq!(e, "interrupted");
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
}
