//! Weight files of the backbones: in a cache folder, never touched unless asked.

mod download;

use std::io::Read;
use std::path::{Path, PathBuf};

use blemish_backbone::catalogue::{self, File};
use blemish_backbone::{Backbone, WeightSet};
use blemish_core::Session;
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// The cache folder and what may be in it.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// The store in `folder`, which need not exist.
    pub fn new(folder: impl Into<PathBuf>) -> Store {
        Store { folder: folder.into() }
    }

    /// The platform's cache folder for blemish.
    pub fn platform() -> Store {
        let place = directories::ProjectDirs::from("", "", "blemish").map(|d| d.cache_dir().join("weights"));
        Store::new(place.unwrap_or_else(|| PathBuf::from(".blemish-cache/weights")))
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a published file is or would be.
    pub fn path(&self, file: &File) -> PathBuf {
        self.folder.join(file.name)
    }

    /// Weights for a network, if the store has any: an imported file `<net>.safetensors` or `<net>.pth`, else the first of
    /// the published ones.
    pub fn find(&self, net: &str) -> Option<PathBuf> {
        let imported = ["safetensors", "pth"].map(|ending| self.folder.join(format!("{net}.{ending}")));
        let published = catalogue::FILES.iter().filter(|file| file.net == net).map(|file| self.path(file));
        imported.into_iter().chain(published).find(|path| path.is_file())
    }

    /// The published file called `name`, or the first one for the network called `name`.
    ///
    /// # Errors
    /// [`Error::Unknown`] with a suggestion.
    pub fn published(name: &str) -> Result<&'static File> {
        let known: Vec<&str> = catalogue::FILES.iter().flat_map(|file| [file.net, file.name]).collect();
        let found = catalogue::FILES.iter().find(|file| file.name == name || file.net == name);
        found.ok_or_else(|| {
            let mut short = known.clone();
            short.dedup();
            Error::unknown("weight file", name, &short)
        })
    }

    /// Copies a file into the store under the name of the network its tensors fit.
    ///
    /// # Errors
    /// A file that is none, or whose tensors fit no network.
    pub fn import(&self, path: &Path) -> Result<PathBuf> {
        let weights = WeightSet::open(path)?;
        let Some(net) = weights.fits().first().copied() else {
            let net = catalogue::NETS[0];
            // Says what is missing for the nearest thing to an answer there is.
            let layers: Vec<String> = net.layers.last().map(|l| l.name.to_owned()).into_iter().collect();
            Backbone::new(net.id, &layers, &weights)?;
            return Err(Error::unknown("backbone for these tensors", &path.display().to_string(), &[]));
        };
        let ending = if path.extension().is_some_and(|e| e == "safetensors") { "safetensors" } else { "pth" };
        let to = self.folder.join(format!("{net}.{ending}"));
        std::fs::create_dir_all(&self.folder).map_err(Error::io(&self.folder))?;
        let part = tempfile::Builder::new()
            .prefix(".blemish-")
            .suffix(".part")
            .tempfile_in(&self.folder)
            .map_err(Error::io(&self.folder))?;
        std::fs::copy(path, part.path()).map_err(Error::io(path))?;
        // A temporary file is private; the cache may be shared, as what is downloaded is.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let readable = std::fs::Permissions::from_mode(0o644);
            part.as_file().set_permissions(readable).map_err(Error::io(part.path()))?;
        }
        part.persist(&to).map_err(|e| Error::Io { path: to.clone(), source: e.error })?;
        Ok(to)
    }

    /// Checks a stored or any other file: the published sum if its name is known, and that its tensors fit a network.
    /// Returns the network.
    ///
    /// # Errors
    /// A wrong sum, an unusable file, or tensors that fit no network.
    pub fn check(&self, path: &Path) -> Result<&'static str> {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if let Some(file) = catalogue::FILES.iter().find(|file| file.name == name) {
            verify(path, file)?;
        }
        let weights = WeightSet::open(path)?;
        weights.fits().first().copied().ok_or_else(|| {
            let nets: Vec<&str> = catalogue::NETS.iter().map(|net| net.id).collect();
            Error::unknown("backbone for the tensors of", &path.display().to_string(), &nets)
        })
    }

    /// Downloads a published file, going on where an earlier try stopped, and checks its sum.
    ///
    /// # Errors
    /// [`Error::Download`] if the network refuses or the content is not what was published; an interruption.
    pub fn pull(&self, file: &File, session: &Session<'_>) -> Result<PathBuf> {
        let to = self.path(file);
        if to.is_file() && verify(&to, file).is_ok() {
            return Ok(to);
        }
        std::fs::create_dir_all(&self.folder).map_err(Error::io(&self.folder))?;
        let part = self.folder.join(format!("{}.part", file.name));
        download::fetch(file.url, &part, file.bytes, session)?;
        if let Err(error) = verify(&part, file) {
            // Going on with damaged bytes would never end.
            let _ = std::fs::remove_file(&part);
            return Err(error);
        }
        std::fs::rename(&part, &to).map_err(Error::io(&to))?;
        Ok(to)
    }
}

/// Compares the SHA-256 with the published digits.
fn verify(path: &Path, file: &File) -> Result<()> {
    let sum = sha256(path)?;
    if sum.starts_with(file.sha256_prefix) {
        return Ok(());
    }
    let why = format!("{} has SHA-256 {sum}, which should begin with {}", path.display(), file.sha256_prefix);
    Err(Error::Download { url: file.url.to_owned(), why })
}

/// SHA-256 of a file in hexadecimal digits.
fn sha256(path: &Path) -> Result<String> {
    let mut reader = std::fs::File::open(path).map_err(Error::io(path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = reader.read(&mut buffer).map_err(Error::io(path))?;
        if n == 0 {
            return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hash.update(&buffer[..n]);
    }
}

#[cfg(test)]
mod tests {
    use super::download::tests::serve;
    use super::*;

    /// A published file of this content; `prefix` as its sum begins.
    fn published(url: String, prefix: &str, bytes: u64) -> File {
        let text = |s: &str| -> &'static str { Box::leak(s.to_owned().into_boxed_str()) };
        File { name: "w.pth", net: "resnet18", url: text(&url), sha256_prefix: text(prefix), bytes, about: "" }
    }

    #[test]
    fn other_content_than_published_never_gets_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().join("cache"));
        let body = vec![7u8; 100_000];
        let file = published(serve(body.clone(), 1, usize::MAX), "00000000", 100_000);
        let error = store.pull(&file, &Session::quiet(0)).unwrap_err().to_string();
        assert!(error.contains("SHA-256") && error.contains("00000000"), "{error}");
        assert_eq!(std::fs::read_dir(store.folder()).unwrap().count(), 0, "nothing is left to go on with");
    }

    #[test]
    fn a_pull_goes_on_and_then_needs_no_network() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        let body: Vec<u8> = (0..150_000u32).map(|i| (i % 253) as u8).collect();
        std::fs::write(dir.path().join("sum"), &body).unwrap();
        let sum = sha256(&dir.path().join("sum")).unwrap();
        let file = published(serve(body.clone(), 2, 60_000), &sum[..8], 150_000);
        assert!(store.pull(&file, &Session::quiet(0)).is_err(), "the first connection breaks off");
        assert!(!store.path(&file).exists(), "half a file has no name");
        let path = store.pull(&file, &Session::quiet(0)).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), body);
        // The server answers twice only.
        assert_eq!(store.pull(&file, &Session::quiet(0)).unwrap(), path);
        assert_eq!(store.find("resnet18"), None, "only published names and imported ones are looked for");
    }
}
