//! What building blemish needs besides Rust: a C compiler to link with, and OpenBLAS.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::shell;

/// What a system has of the needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// The C compiler's major version.
    pub(crate) cc: Option<u32>,
    /// The folder of `libopenblas.so` or `libopenblas.a`.
    pub(crate) openblas: Option<PathBuf>,
    /// Whether that folder has the archive, and the Fortran run-time library has one too.
    pub(crate) linked_statically: bool,
}

/// How this system installs packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manager {
    Apt,
    Dnf,
    Pacman,
    Brew,
    Unknown,
}

/// Looks for everything.
pub(crate) fn look() -> Found {
    let cc = shell::output(Command::new("cc").arg("-dumpversion")).ok().and_then(|text| major(&text));
    let openblas = openblas_folders().into_iter().find(|folder| has_openblas(folder));
    let archive = openblas.as_deref().is_some_and(|folder| folder.join("libopenblas.a").exists());
    let linked_statically = archive && compiler_has("libgfortran.a");
    Found { cc, openblas, linked_statically }
}

/// Makes sure that the build can start, installing packages where that is allowed.
///
/// # Errors
/// Says the exact command to run where it may not install, or where installing failed.
pub(crate) fn ensure(quiet: bool) -> Result<Found> {
    let found = look();
    let manager = manager();
    // A static program is a comfort, so its package alone is worth an installation only where that costs a moment.
    let missing = packages(&found, manager);
    if missing.is_empty() {
        say(quiet, &summary(&found));
        return Ok(found);
    }
    let Some(prefix) = (manager == Manager::Apt).then(privilege).flatten() else {
        if usable(&found) {
            say(quiet, &summary(&found));
            return Ok(found);
        }
        bail!("{}", advice(&found, manager));
    };
    say(quiet, &format!("installing {} (apt)", missing.join(" ")));
    let installed = apt(prefix, &["update", "-qq"]) && apt(prefix, &install_words(&missing));
    let found = look();
    if !usable(&found) {
        let how = if installed { "installed, but still not found" } else { "apt-get did not install it" };
        bail!("{how}\n{}", advice(&found, manager));
    }
    say(quiet, &summary(&found));
    Ok(found)
}

/// Prints what is here; `false` if the build cannot start.
pub(crate) fn doctor() -> Result<bool> {
    let found = look();
    let rust = shell::output(Command::new("rustc").arg("--version")).unwrap_or_else(|_| "not found".into());
    shell::step("rust", rust.trim());
    shell::step("cc", &found.cc.map_or("not found".into(), |v| format!("found, version {v}")));
    let blas = match (&found.openblas, found.linked_statically) {
        (None, _) => "not found".into(),
        (Some(folder), true) => format!("{} (linked statically)", folder.display()),
        (Some(folder), false) => format!("{} (linked dynamically)", folder.display()),
    };
    shell::step("blas", &blas);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    shell::step("cpu", &format!("{threads} threads, {}", simd()));
    shell::step("gpu", "not used: this version computes on the CPU");
    if !usable(&found) {
        println!("{}", advice(&found, manager()));
    }
    Ok(usable(&found))
}

fn say(quiet: bool, text: &str) {
    if !quiet {
        shell::step("need", text);
    }
}

fn usable(found: &Found) -> bool {
    found.cc.is_some() && found.openblas.is_some()
}

fn summary(found: &Found) -> String {
    let how = if found.linked_statically { "static" } else { "dynamic: the program will need it where it runs" };
    format!("C compiler … ok, OpenBLAS ({how}) … ok")
}

fn major(version: &str) -> Option<u32> {
    version.trim().split('.').next()?.parse().ok()
}

/// Packages to install for what is missing, none where the build is complete.
fn packages(found: &Found, manager: Manager) -> Vec<String> {
    let mut list: Vec<&str> = Vec::new();
    let fortran = found.cc.map_or("gfortran".to_owned(), |version| format!("libgfortran-{version}-dev"));
    match manager {
        Manager::Apt => {
            if found.cc.is_none() {
                list.extend(["gcc", "libc6-dev"]);
            }
            if found.openblas.is_none() {
                list.push("libopenblas-serial-dev");
            }
            if !found.linked_statically {
                list.push(&fortran);
            }
        }
        Manager::Dnf if !usable(found) => list.extend(["gcc", "gcc-gfortran", "openblas-devel", "openblas-static"]),
        Manager::Pacman if !usable(found) => list.extend(["gcc", "gcc-fortran", "openblas"]),
        Manager::Brew if !usable(found) => list.push("openblas"),
        _ => {}
    }
    list.into_iter().map(str::to_owned).collect()
}

/// What to type, for this system first and then for the others.
fn advice(found: &Found, manager: Manager) -> String {
    let what = match (found.cc.is_some(), found.openblas.is_some()) {
        (false, false) => "a C compiler and OpenBLAS are missing",
        (false, true) => "a C compiler (cc) is missing",
        _ => "OpenBLAS is missing",
    };
    let words = packages(found, manager).join(" ");
    let here = match manager {
        Manager::Apt => format!("run:   sudo apt-get install -y {words}"),
        Manager::Dnf => format!("run:   sudo dnf install -y {words}"),
        Manager::Pacman => format!("run:   sudo pacman -S {words}"),
        Manager::Brew => format!("run:   brew install {words}"),
        Manager::Unknown => "install it with this system's package manager".into(),
    };
    format!(
        "{what}\n       {here}\n       elsewhere: Debian, Ubuntu: libopenblas-serial-dev libgfortran-NN-dev (NN: major of `cc \
         -dumpversion`)\n                  Fedora: openblas-devel openblas-static gcc-gfortran\n                  \
         Arch: openblas gcc-fortran\n                  macOS: brew install openblas\n       \
         in a folder of your own: set BLEMISH_OPENBLAS to it"
    )
}

fn manager() -> Manager {
    let known =
        [("apt-get", Manager::Apt), ("dnf", Manager::Dnf), ("pacman", Manager::Pacman), ("brew", Manager::Brew)];
    let here = |name: &str| Command::new(name).arg("--version").output().is_ok();
    known.into_iter().find(|(name, _)| here(name)).map_or(Manager::Unknown, |(_, manager)| manager)
}

/// What to put before `apt-get`: nothing for root, `sudo -n` where that asks no password, `None` where neither works.
fn privilege() -> Option<&'static [&'static str]> {
    let id = shell::output(Command::new("id").arg("-u")).ok()?;
    if id.trim() == "0" {
        return Some(&[]);
    }
    shell::output(Command::new("sudo").args(["-n", "true"])).ok().map(|_| ["sudo", "-n"].as_slice())
}

fn install_words(packages: &[String]) -> Vec<&str> {
    let options = ["install", "-y", "-qq", "--no-install-recommends"];
    options.into_iter().chain(packages.iter().map(String::as_str)).collect()
}

/// Runs apt-get; its words are shown only when it fails.
fn apt(prefix: &[&str], words: &[&str]) -> bool {
    let line: Vec<&str> = prefix.iter().copied().chain(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]).collect();
    let Some((program, rest)) = line.split_first() else { return false };
    match shell::output(Command::new(program).args(rest).args(words)) {
        Ok(_) => true,
        Err(error) => {
            eprintln!("{error:#}");
            false
        }
    }
}

/// Where the build script of `blemish-linalg` looks, in its order.
fn openblas_folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    if let Some(wish) = std::env::var_os("BLEMISH_OPENBLAS").filter(|w| w != "dynamic" && !w.is_empty()) {
        folders.push(PathBuf::from(wish));
    }
    let debian = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    for flavour in ["openblas-serial", "openblas-pthread", "."] {
        folders.push(Path::new(&debian).join(flavour));
    }
    let others =
        ["/usr/lib64", "/usr/lib", "/usr/local/lib", "/opt/homebrew/opt/openblas/lib", "/usr/local/opt/openblas/lib"];
    folders.extend(others.map(PathBuf::from));
    folders
}

fn has_openblas(folder: &Path) -> bool {
    ["libopenblas.so", "libopenblas.a", "libopenblas.dylib"].iter().any(|name| folder.join(name).exists())
}

/// Whether the C compiler knows where a library of its own is.
fn compiler_has(name: &str) -> bool {
    let answer = shell::output(Command::new("cc").arg(format!("-print-file-name={name}")));
    answer.is_ok_and(|path| Path::new(path.trim()).is_absolute() && Path::new(path.trim()).exists())
}

/// The instruction sets the kernels choose from at run time.
fn simd() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            return "AVX-512";
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return "AVX2 and FMA";
        }
    }
    "portable code"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete() -> Found {
        Found { cc: Some(12), openblas: Some("/usr/lib".into()), linked_statically: true }
    }

    #[test]
    fn a_complete_system_needs_nothing() {
        for manager in [Manager::Apt, Manager::Dnf, Manager::Pacman, Manager::Brew, Manager::Unknown] {
            assert!(packages(&complete(), manager).is_empty(), "{manager:?}");
        }
    }

    #[test]
    fn debian_packages_follow_the_compiler() {
        let found = Found { openblas: None, linked_statically: false, ..complete() };
        assert_eq!(packages(&found, Manager::Apt), ["libopenblas-serial-dev", "libgfortran-12-dev"]);
        let bare = Found::default();
        assert_eq!(packages(&bare, Manager::Apt), ["gcc", "libc6-dev", "libopenblas-serial-dev", "gfortran"]);
    }

    #[test]
    fn advice_names_what_is_missing_and_a_command() {
        let text = advice(&Found { openblas: None, ..complete() }, Manager::Dnf);
        assert!(text.starts_with("OpenBLAS is missing\n"), "{text}");
        assert!(text.contains("sudo dnf install -y gcc gcc-gfortran openblas-devel openblas-static"), "{text}");
        assert!(advice(&Found::default(), Manager::Unknown).contains("brew install openblas"));
    }

    #[test]
    fn compiler_versions() {
        assert_eq!(major("12\n"), Some(12));
        assert_eq!(major("13.2.0"), Some(13));
        assert_eq!(major("clang"), None);
    }
}
