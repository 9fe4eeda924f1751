use super::*;
use crate::test::scratch;

#[test]
fn only_gpu_targets_go_in() {
    let target = |name: &str, kind: &str| json!({"name": name, "kind": [kind]});
    let metadata = json!({"packages": [
        {"name": "blemish-a", "features": {"cuda": []},
            "targets": [target("cuda", "test"), target("gpu", "bench"), target("other", "test"), target("cuda", "lib")]},
        {"name": "blemish-kernels", "features": {"cuda": []}, "targets": [target("gpu", "bench")]},
        {"name": "blemish-b", "features": {}, "targets": [target("cuda", "test")]},
    ]});
    let names: Vec<String> = programs(&metadata).into_iter().map(|p| p.name).collect();
    assert_eq!(names, ["test-a-cuda", "gpu-a", "gpu"]);
    let here = programs(&shell::metadata(&shell::root().unwrap()).unwrap());
    let names: Vec<&str> = here.iter().map(|p| p.name.as_str()).collect();
    assert!(["test-kernels-cuda", "test-blemish-cuda", "gpu"].iter().all(|n| names.contains(n)), "{names:?}");
    assert!(!names.iter().any(|name| name.contains("embedding")), "{names:?}");
}

#[test]
fn libraries_beyond_the_system_are_named() {
    let fine = "\tlinux-vdso.so.1 (0x0)\n\tlibgcc_s.so.1 => /lib/libgcc_s.so.1 (0x0)\n\tlibc.so.6 => /lib/libc.so.6 (0x0)\n\
        \t/lib64/ld-linux-x86-64.so.2 (0x0)\n";
    assert!(foreign(fine).is_empty());
    assert!(foreign("\tstatically linked\n").is_empty());
    let more = format!("{fine}\tlibopenblas.so.0 => not found\n\tlibgfortran.so.5 => /lib/libgfortran.so.5 (0x0)\n");
    assert_eq!(foreign(&more), ["libopenblas.so.0", "libgfortran.so.5"]);
}

#[test]
fn the_newest_glibc_is_found() {
    assert_eq!(newest_glibc(b"\0GLIBC_2.9\0GLIBC_2.34\0GLIBC_PRIVATE\0GLIBC_2.4"), (2, 34));
    assert_eq!(newest_glibc(b"GLIBC"), (0, 0));
}

#[test]
fn a_folder_that_is_no_bundle_is_left_alone() {
    let root = scratch("bundle-folder");
    std::fs::write(root.join("letter.txt"), "keep").unwrap();
    let refused = prepare(&root).is_err();
    let kept = root.join("letter.txt").is_file();
    std::fs::write(root.join("MANIFEST.json"), "{}").unwrap();
    prepare(&root).unwrap();
    let emptied = !root.join("letter.txt").exists() && root.join("bin").is_dir();
    std::fs::remove_dir_all(&root).unwrap();
    assert!(refused && kept && emptied);
}

/// A bundle whose test program is a script.
#[cfg(unix)]
fn bundle(name: &str, script: &str) -> PathBuf {
    let folder = scratch(name);
    std::fs::create_dir_all(folder.join("bin")).unwrap();
    for (file, text) in [("bin/test-a-cuda", script), ("run.sh", RUN)] {
        std::fs::write(folder.join(file), text).unwrap();
        executable(&folder.join(file)).unwrap();
    }
    manifest(&folder, &folder, (2, 31)).unwrap();
    folder
}

#[cfg(unix)]
fn answer(folder: &Path, words: &[&str]) -> (Option<i32>, Value, String) {
    let mut command = Command::new("bash");
    command.arg(folder.join("run.sh")).args(words).env_remove("STRICT").env_remove("RESULTS");
    let out = command.output().unwrap();
    let value = serde_json::from_slice(&out.stdout).unwrap_or(Value::Null);
    (out.status.code(), value, String::from_utf8_lossy(&out.stderr).into_owned())
}

#[cfg(unix)]
#[test]
fn the_script_tells_passed_failed_and_skipped_apart() {
    let pass = "#!/bin/sh\necho 'skipped: no GPU here' >&2\necho 'test result: ok. 3 passed; 0 failed; 0 ignored'\n";
    let folder = bundle("bundle-pass", pass);
    let (code, value, said) = answer(&folder, &["test"]);
    assert_eq!((code, &value["status"], &value["programs"][0]["passed"]), (Some(0), &json!("skipped"), &json!(3)));
    assert_eq!(value["programs"][0]["skipped"], 1);
    assert!(said.contains("SKIPPED: 1 tests") && said.contains("no GPU here"), "{said}");
    assert_eq!(answer(&folder, &["nonsense"]).0, Some(2));
    std::fs::write(folder.join("bin/test-a-cuda"), "changed").unwrap();
    let (code, _, said) = answer(&folder, &["test"]);
    assert!(code == Some(1) && said.contains("SHA256SUMS"), "{said}");
    std::fs::remove_dir_all(&folder).unwrap();

    let folder =
        bundle("bundle-fail", "#!/bin/sh\necho 'test result: FAILED. 1 passed; 2 failed; 0 ignored'\nexit 101\n");
    let (code, value, _) = answer(&folder, &["test"]);
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!((code, &value["status"], &value["programs"][0]["failed"]), (Some(1), &json!("failed"), &json!(2)));
}
