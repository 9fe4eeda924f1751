//! Links OpenBLAS (with its LAPACK): statically where the static archives are installed, so that programs run on
//! machines without it, else dynamically.
//!
//! `BLEMISH_OPENBLAS` overrides: a folder to search first, or the word `dynamic`.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=BLEMISH_OPENBLAS");
    println!("cargo:rerun-if-changed=build.rs");
    let wish = std::env::var("BLEMISH_OPENBLAS").unwrap_or_default();
    let arch = std::env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let mut folders = Vec::new();
    if !wish.is_empty() && wish != "dynamic" {
        folders.push(PathBuf::from(&wish));
    }
    // The serial build comes first: our own threads split the work, and its results do not depend on their number.
    let lib = format!("/usr/lib/{arch}-linux-gnu");
    for flavour in ["openblas-serial", "openblas-pthread", "."] {
        folders.push(Path::new(&lib).join(flavour));
    }
    for folder in
        ["/usr/lib64", "/usr/lib", "/usr/local/lib", "/opt/homebrew/opt/openblas/lib", "/usr/local/opt/openblas/lib"]
    {
        folders.push(PathBuf::from(folder));
    }
    if wish != "dynamic" && std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        let fortran = ["libgfortran.a", "libquadmath.a"].map(compiler_file);
        let archive = folders.iter().find(|f| f.join("libopenblas.a").exists());
        if let (Some(folder), Some(gfortran)) = (archive, &fortran[0]) {
            search(folder);
            name(&folder.join("libopenblas.a"), "linked statically");
            println!("cargo:rustc-link-lib=static=openblas");
            search(gfortran);
            println!("cargo:rustc-link-lib=static=gfortran");
            // Only x86 builds of the Fortran run-time library need it.
            if let Some(quadmath) = &fortran[1] {
                search(quadmath);
                println!("cargo:rustc-link-lib=static=quadmath");
            }
            println!("cargo:rustc-link-lib=dylib=m");
            println!("cargo:rustc-link-lib=dylib=pthread");
            return;
        }
    }
    let shared =
        |f: &PathBuf| ["libopenblas.so", "libopenblas.dylib"].map(|name| f.join(name)).into_iter().find(|p| p.exists());
    match folders.iter().find_map(|f| Some((f, shared(f)?))) {
        Some((folder, file)) => {
            search(folder);
            name(&file, "linked dynamically");
        }
        None => {
            println!("cargo:rustc-env=BLEMISH_BLAS=OpenBLAS, linked dynamically");
            println!(
                "cargo:warning=OpenBLAS was not found; on Debian and Ubuntu: apt-get install libopenblas-serial-dev \
                 (or set BLEMISH_OPENBLAS to the folder that holds it)"
            );
        }
    }
    println!("cargo:rustc-link-lib=dylib=openblas");
}

fn search(folder: &Path) {
    println!("cargo:rustc-link-search=native={}", folder.display());
}

/// Tells the crate what it is linked with: the words the library has of itself, `OpenBLAS 0.3.21 DYNAMIC_ARCH ...`.
fn name(file: &Path, how: &str) {
    const START: &[u8] = b"OpenBLAS ";
    let bytes = std::fs::read(file).unwrap_or_default();
    let at = (0..bytes.len().saturating_sub(START.len()))
        .find(|&i| bytes[i] == START[0] && bytes[i..].starts_with(START) && bytes[i + START.len()].is_ascii_digit());
    let words = at.map_or("OpenBLAS".into(), |at| {
        let end = bytes[at..].iter().position(|b| !(b' '..=b'~').contains(b)).unwrap_or(0);
        String::from_utf8_lossy(&bytes[at..at + end])
    });
    let words: Vec<&str> = words.split_whitespace().collect();
    println!("cargo:rustc-env=BLEMISH_BLAS={}, {how}", words.join(" "));
}

/// The folder of a library that belongs to the C compiler.
fn compiler_file(name: &str) -> Option<PathBuf> {
    let output = Command::new("cc").arg(format!("-print-file-name={name}")).output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    let folder = path.is_absolute().then(|| path.parent().map(Path::to_path_buf))??;
    path.exists().then_some(folder)
}
