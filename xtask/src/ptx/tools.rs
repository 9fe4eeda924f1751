//! The pinned tools, as wheels of the vendor; the package index is whatever pip is configured for.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;

/// The compiler's version; its minor version sets the driver a user needs (12.4: branch 550).
pub(super) const NVRTC: &str = "12.4.127";

/// Name, version and hash of each wheel (Linux, x86-64).
const WHEELS: [(&str, &str, &str); 4] = [
    ("nvidia-cuda-nvrtc-cu12", NVRTC, "a178759ebb095827bd30ef56598ec182b85547f1508941a3d560eb7ea1fbf338"),
    ("nvidia-cuda-nvcc", "13.0.88", "56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03"),
    ("nvidia-cuda-cuobjdump", "13.2.78", "394087411405b846bf43aa52ca2ff603bbe18b3b8a1257cda0903e23c17bdbf3"),
    ("nvidia-cuda-nvdisasm", "13.2.78", "b4ebcd3c5046bf8039ac52675b9dbefd843600969649ecaab0a42b0713a61dae"),
];

/// The folder the tools lie in.
pub(super) struct Tools {
    folder: PathBuf,
}

impl Tools {
    /// `target/cuda-tools`, made if it is not there.
    pub(super) fn open(root: &Path) -> Result<Self> {
        let folder = shell::target_dir(root)?.join("cuda-tools");
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Tools { folder })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn nvrtc(&self) -> Option<PathBuf> {
        self.find("nvidia/cuda_nvrtc/lib/libnvrtc.so.12")
    }

    pub(super) fn ptxas(&self) -> Option<PathBuf> {
        self.find("nvidia/cu13/bin/ptxas")
    }

    pub(super) fn nvdisasm(&self) -> Option<PathBuf> {
        self.find("nvidia/cu13/bin/nvdisasm")
    }

    fn find(&self, path: &str) -> Option<PathBuf> {
        Some(self.folder.join(path)).filter(|p| p.is_file())
    }

    /// The program that loads NVRTC, compiled if it is not there: C, since this crate has no unsafe code.
    pub(super) fn compiler(&self, root: &Path) -> Result<PathBuf> {
        let (source, program) = (root.join("xtask/src/ptx/nvrtc.c"), self.folder.join("nvrtc"));
        let time = |path: &Path| std::fs::metadata(path).and_then(|m| m.modified()).ok();
        if time(&program) <= time(&source) {
            shell::output(Command::new("cc").args(["-O1", "-o"]).arg(&program).arg(&source).arg("-ldl"))?;
        }
        Ok(program)
    }

    /// Downloads the wheels, refusing any other bytes, and unpacks them.
    pub(super) fn fetch(&self) -> Result<()> {
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            bail!("the pinned wheels are for Linux on x86-64");
        }
        let lines = WHEELS.map(|(name, version, hash)| format!("{name}=={version} --hash=sha256:{hash}\n"));
        let (list, wheels) = (self.folder.join("requirements.txt"), self.folder.join("wheels"));
        std::fs::write(&list, lines.concat()).with_context(|| format!("cannot write {}", list.display()))?;
        shell::step("fetch", "NVRTC, ptxas and the disassembler, 67 MB, by pip");
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "--quiet", "--require-hashes", "--no-deps", "--dest"]);
        shell::output(pip.arg(&wheels).arg("--requirement").arg(&list))?;
        for entry in std::fs::read_dir(&wheels).with_context(|| format!("cannot list {}", wheels.display()))? {
            let wheel = entry?.path();
            shell::output(Command::new("python3").args(["-m", "zipfile", "--extract"]).arg(&wheel).arg(&self.folder))?;
        }
        for tool in [self.ptxas(), self.nvdisasm()].into_iter().flatten() {
            shell::output(Command::new("chmod").arg("+x").arg(tool))?;
        }
        match (self.nvrtc(), self.ptxas()) {
            (Some(_), Some(_)) => shell::step("fetch", &self.folder.display().to_string()),
            _ => bail!("the wheels do not hold what they should"),
        }
        Ok(())
    }
}
