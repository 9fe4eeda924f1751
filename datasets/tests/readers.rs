//! Finding pictures: layouts, parts, and what is said when there are none.

use std::fs;
use std::path::{Path, PathBuf};

use blemish_core::ImageSource;
use blemish_datasets::{DataSpec, Dataset, Files, Protocol, Sample, expand, mvtec};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn put(root: &Path, path: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
    image::GrayImage::new(8, 6).save(path).expect("saving");
}

fn category(root: &Path, name: &str) {
    for i in 0..20 {
        put(root, &format!("{name}/train/good/{i:03}.png"));
    }
    for i in 0..4 {
        put(root, &format!("{name}/test/good/{i:03}.png"));
        put(root, &format!("{name}/test/scratch/{i:03}.png"));
        put(root, &format!("{name}/ground_truth/scratch/{i:03}_mask.png"));
    }
    put(root, &format!("{name}/test/bent/000.png"));
    put(root, &format!("{name}/ground_truth/bent/000_mask.png"));
}

fn at(data: &Path) -> DataSpec {
    DataSpec { data: Some(data.to_path_buf()), ..DataSpec::default() }
}

fn names(samples: &[Sample], root: &Path) -> Vec<String> {
    let name = |s: &Sample| s.path.strip_prefix(root).expect("below the root").display().to_string();
    samples.iter().map(name).collect()
}

fn error(spec: &DataSpec) -> String {
    Dataset::open(spec, 0).expect_err("an error").to_string()
}

#[test]
fn the_mvtec_layout_is_read_from_root_and_category() {
    let root = folder();
    category(root.path(), "nut");
    category(root.path(), "cog");
    let named = DataSpec { category: Some("nut".into()), ..at(root.path()) };
    let data = Dataset::open(&named, 0).expect("a data set");
    assert_eq!((data.category.as_str(), data.train.len(), data.val.len()), ("nut", 18, 2));
    let nut = root.path().join("nut/test");
    let expected =
        ["bent/000", "good/000", "good/001", "good/002", "good/003", "scratch/000"].map(|n| format!("{n}.png"));
    assert_eq!(names(&data.test, &nut)[..6], expected);
    assert!(data.test.iter().all(|s| s.mask.is_some() == (s.good == Some(false))));
    assert_eq!(data.test[5].mask.as_deref(), Some(root.path().join("nut/ground_truth/scratch/000_mask.png").as_path()));
    assert_eq!((data.test[0].kind.as_str(), data.test[1].kind.as_str()), ("bent", "good"));
    let direct = Dataset::open(&at(&root.path().join("nut")), 0).expect("a data set");
    assert_eq!((&direct.train, &direct.val, &direct.test), (&data.train, &data.val, &data.test));
    assert_eq!(data.name, direct.name);
    // Two categories and none named; then a slip of the pen.
    let e = error(&at(root.path()));
    assert!(e.contains("cog, nut") && e.contains("category"), "{e}");
    let e = error(&DataSpec { category: Some("nutt".into()), ..at(root.path()) });
    assert!(e.contains("Did you mean 'nut'") && e.contains("cog, nut"), "{e}");
    let e = error(&DataSpec { category: Some("screw".into()), ..at(root.path()) });
    assert!(e.contains("mvtec.com"), "{e}");
}

#[test]
fn parts_are_disjoint_and_repeatable() {
    let root = folder();
    category(root.path(), "nut");
    let spec = DataSpec { val_ratio: 0.25, ..at(&root.path().join("nut")) };
    let open = |seed| Dataset::open(&spec, seed).expect("a data set");
    let (a, b, c) = (open(1), open(1), open(2));
    assert_eq!((&a.train, &a.val), (&b.train, &b.val));
    assert_ne!(a.val, c.val);
    assert_eq!((a.train.len(), a.val.len()), (15, 5));
    assert!(a.val.iter().all(|s| !a.train.contains(s) && s.good == Some(true)));
    assert!(a.train.is_sorted_by_key(|s| &s.path) && a.val.is_sorted_by_key(|s| &s.path));
    let none = Dataset::open(&DataSpec { val_ratio: 0.0, ..spec.clone() }, 1).expect("a data set");
    assert_eq!((none.train.len(), none.val.len()), (20, 0));
    let paper = Dataset::open(&DataSpec { protocol: Protocol::Paper, ..spec.clone() }, 1).expect("a data set");
    assert_eq!((paper.train.len(), &paper.val), (20, &paper.test));
    assert!(paper.notes.iter().any(|n| n.contains("flatters")), "{:?}", paper.notes);
    for val_ratio in [-0.1, 1.0, f64::NAN] {
        assert!(error(&DataSpec { val_ratio, ..spec.clone() }).starts_with("val_ratio"));
    }
}

#[test]
fn gaps_in_the_layout_are_said() {
    let root = folder();
    category(root.path(), "nut");
    let nut = root.path().join("nut");
    put(&nut, "ground_truth/scratch/777_mask.png");
    fs::remove_file(nut.join("ground_truth/bent/000_mask.png")).expect("removing");
    fs::write(nut.join("test/bent/readme.txt"), "x").expect("writing");
    fs::write(nut.join("train/good/.hidden.png"), "x").expect("writing");
    let notes = Dataset::open(&at(&nut), 0).expect("a data set").notes.join("\n");
    for wanted in ["mask without a picture", "777_mask.png", "1 of 5 bad pictures have no mask", "1 files in"] {
        assert!(notes.contains(wanted), "{wanted}: {notes}");
    }
    fs::remove_dir_all(nut.join("test")).expect("removing");
    let data = Dataset::open(&at(&nut), 0).expect("a data set");
    assert!(data.test.is_empty() && data.notes.iter().any(|n| n.contains("nothing to test on")));
    fs::remove_dir_all(nut.join("train/good")).expect("removing");
    let e = error(&at(&nut));
    assert!(e.contains("holds no images to learn from") && e.contains("train/good"), "{e}");
}

#[test]
fn plain_folders_are_read() {
    let root = folder();
    let e = error(&at(root.path()));
    assert!(e.contains("holds no images to learn from") && e.contains("directly inside"), "{e}");
    for i in 0..10 {
        put(root.path(), &format!("flat/{i}.jpg"));
        put(root.path(), &format!("set/OK/deep/{i}.bmp"));
    }
    for kind in ["dent", "hair"] {
        for i in 0..3 {
            put(root.path(), &format!("set/{kind}/{i}.png"));
            put(root.path(), &format!("set/masks/{kind}/{i}.png"));
        }
    }
    let flat = Dataset::open(&at(&root.path().join("flat")), 0).expect("a data set");
    assert_eq!((flat.train.len(), flat.val.len(), flat.test.len(), flat.category.as_str()), (9, 1, 0, "flat"));
    let set = root.path().join("set");
    let data = Dataset::open(&at(&set), 0).expect("a data set");
    assert_eq!((data.train.len() + data.val.len(), data.test.len()), (8, 8));
    let hair = data.test.iter().find(|s| s.kind == "hair").expect("a hair");
    assert_eq!(hair.mask.as_deref(), Some(set.join("masks/hair/0.png").as_path()));
    let named = DataSpec { category: Some("set".into()), ..at(root.path()) };
    assert_eq!(Dataset::open(&named, 0).expect("a data set").test, data.test);
}

#[test]
fn lists_and_patterns_are_read() {
    let root = folder();
    for i in 0..10 {
        put(root.path(), &format!("a/{i}.png"));
    }
    put(root.path(), "b/x.png");
    put(root.path(), "m/x_mask.png");
    let text = |p: &str| root.path().join(p).display().to_string();
    let spec = DataSpec {
        good: vec![text("a/*.png")],
        bad: vec![text("b")],
        masks: Some(root.path().join("m")),
        ..DataSpec::default()
    };
    let data = Dataset::open(&spec, 0).expect("a data set");
    assert_eq!((data.train.len(), data.val.len(), data.test.len()), (7, 1, 3));
    let bad = data.test.iter().find(|s| s.good == Some(false)).expect("a bad one");
    assert_eq!((bad.kind.as_str(), bad.mask.as_deref()), ("bad", Some(root.path().join("m/x_mask.png").as_path())));
    let relative = DataSpec { good: vec!["a".into()], bad: vec!["b".into()], ..at(root.path()) };
    assert_eq!(Dataset::open(&relative, 0).expect("a data set").train, data.train);
    // The same picture as good and as bad.
    let twice = DataSpec { bad: vec![text("a/3.png"), text("a/4.png")], ..spec.clone() };
    assert!(error(&twice).contains("is in both"));
    assert!(error(&DataSpec { bad: spec.bad.clone(), ..DataSpec::default() }).starts_with("bad: "));
    assert!(error(&DataSpec { manifest: Some("x.csv".into()), ..spec.clone() }).starts_with("manifest: "));
    assert!(error(&DataSpec { masks: Some(root.path().join("none")), ..spec }).contains("masks were to be there"));
    let missing = error(&at(&root.path().join("nowhere")));
    assert!(missing.contains("nowhere"), "{missing}");
}

#[test]
fn manifests_are_read() {
    let root = folder();
    for i in 0..6 {
        put(root.path(), &format!("{i}.png"));
    }
    let rows = [("0", "good", "", "train"), ("1", "good", "", ""), ("2", "ok", "", "val"), ("3", "good", "", "test")];
    let rows = [&rows[..], &[("4", "dent", "5.png", "test"), ("5", "", "", "")]].concat();
    let csv = "path,label,mask,split\n".to_owned()
        + &rows.iter().map(|(p, l, m, s)| format!("{p}.png,{l},{m},{s}\n")).collect::<String>();
    let object = |(p, l, m, s): &(&str, &str, &str, &str)| {
        format!("{{\"path\":\"{p}.png\",\"label\":\"{l}\",\"mask\":\"{m}\",\"split\":\"{s}\"}}\n")
    };
    let jsonl = rows.iter().map(object).collect::<String>();
    let open = |name: &str, text: &str| {
        let file = root.path().join(name);
        fs::write(&file, text).expect("writing");
        Dataset::open(&DataSpec { manifest: Some(file), ..DataSpec::default() }, 0)
    };
    let a = open("m.csv", &csv).expect("a data set");
    let b = open("m.jsonl", &jsonl).expect("a data set");
    let c = open("semicolons.csv", &csv.replace(',', ";")).expect("a data set");
    assert!((&a.train, &a.val, &a.test) == (&b.train, &b.val, &b.test) && c.test == a.test);
    assert_eq!((a.train.len(), a.val.len(), a.test.len()), (2, 1, 3));
    assert_eq!((a.test[1].kind.as_str(), a.test[1].good), ("dent", Some(false)));
    assert_eq!((a.test[2].good, a.test[2].kind.as_str()), (None, "unknown"));
    for (text, wanted) in [
        ("file,label\n0.png,good\n", "no column 'path'"),
        ("path,label\n0.png,dent,x,y\n", "line 2"),
        ("path,split\n0.png,trian\n", "split 'trian'"),
        ("path,label,split\n0.png,dent,train\n", "good parts only"),
        ("path,label,mask,split\n0.png,good,,train\n1.png,dent,none.png,test\n", "line 3: there is no mask"),
        ("path,label,split\n0.png,good,train\n0.png,good,test\n", "is in both"),
        ("path,label,split\n0.png,good,test\n", "holds no images to learn from"),
        ("path,colour\n0.png,red\n", "colour"),
        ("", "no column 'path'"),
    ] {
        let e = open("bad.csv", text).expect_err(text).to_string();
        assert!(e.contains(wanted), "{text}: {e}");
    }
    let e = open("bad.jsonl", "{\"path\":\"0.png\"}\n{\"path\":\n").expect_err("half a line").to_string();
    assert!(e.contains("line 2"), "{e}");
}

#[test]
fn arguments_are_expanded() {
    let root = folder();
    for name in ["b.png", "a.png", "deep/er/c.JPG", "odd[1].png"] {
        put(root.path(), &name.replace("JPG", "jpg"));
    }
    fs::write(root.path().join("note.txt"), "x").expect("writing");
    let text = |p: &str| root.path().join(p).display().to_string();
    let names = |arguments: &[&str]| {
        let found = expand(&arguments.iter().map(|a| text(a)).collect::<Vec<_>>()).expect("pictures");
        found.iter().map(|p| p.strip_prefix(root.path()).expect("below").display().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(&[""]), ["a.png", "b.png", "deep/er/c.jpg", "odd[1].png"]);
    assert_eq!(names(&["b.png", "*.png", "b.png"]), ["a.png", "b.png", "odd[1].png"]);
    assert_eq!(names(&["**/*.jpg", "odd[1].png", "note.txt"]), ["deep/er/c.jpg", "note.txt", "odd[1].png"]);
    for (argument, wanted) in [
        ("none.png", "there is no"),
        ("*.gif", "holds no images"),
        ("[", "not a usable pattern"),
        ("***/a", "not a usable pattern"),
    ] {
        let e = expand(&[text(argument)]).expect_err(argument).to_string();
        assert!(e.contains(wanted), "{argument}: {e}");
    }
    assert_eq!(expand(&[]).expect("nothing"), Vec::<PathBuf>::new());
    let files = Files::unlabelled(expand(&[text("a.png")]).expect("a picture"));
    assert!(files.len() == 1 && files.get(0).is_ok() && files.get(1).is_err() && files.name(0).ends_with("a.png"));
}

#[cfg(unix)]
#[test]
fn links_in_circles_do_not_hang() {
    let root = folder();
    put(root.path(), "x/a.png");
    std::os::unix::fs::symlink(root.path(), root.path().join("x/up")).expect("a link");
    std::os::unix::fs::symlink(root.path().join("x/self"), root.path().join("x/self")).expect("a link");
    let found = expand(&[root.path().display().to_string()]).expect("pictures");
    assert_eq!(found, [root.path().join("x/a.png")]);
}

#[test]
fn the_check_finds_what_is_wrong() {
    let root = folder();
    category(root.path(), "nut");
    let good = mvtec::check(root.path()).expect("a report");
    assert!(good.len() == 1 && good[0].problems.is_empty() && good[0].found.test_bad == 5, "{good:?}");
    fs::rename(root.path().join("nut"), root.path().join("screw")).expect("renaming");
    let screw = root.path().join("screw");
    fs::write(screw.join("train/good/003.png"), "text").expect("writing");
    fs::remove_file(screw.join("ground_truth/bent/000_mask.png")).expect("removing");
    image::GrayImage::new(7, 6).save(screw.join("ground_truth/scratch/001_mask.png")).expect("saving");
    let problems = mvtec::check(root.path()).expect("a report")[0].problems.join("\n");
    for wanted in [
        "instead of 320 + 41 + 119",
        "003.png: is text",
        "bent/000.png: has no mask",
        "7x6 pixels, its picture has 8x6",
    ] {
        assert!(problems.contains(wanted), "{wanted}: {problems}");
    }
    assert!(mvtec::check(&root.path().join("none")).expect_err("nothing").to_string().contains("mvtec.com"));
}

#[test]
fn the_manifest_has_the_published_sums() {
    let counts = mvtec::manifest().expect("the table");
    assert!(counts.keys().map(String::as_str).eq(mvtec::CATEGORIES));
    let sum = |f: fn(&mvtec::Counts) -> usize| counts.values().map(f).sum::<usize>();
    assert_eq!((sum(|c| c.train), sum(|c| c.test_good), sum(|c| c.test_bad)), (3629, 467, 1258));
}

#[test]
fn the_real_screw_is_whole() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/mvtec");
    if !root.is_dir() {
        eprintln!("skipped: {} is not there", root.display());
        return;
    }
    let reports = mvtec::check(&root).expect("a report");
    assert!(reports.iter().all(|r| r.problems.is_empty()), "{reports:?}");
}
