use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{DataError, Result, folder, manifest, mvtec, split};

/// The parts of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Learned from.
    Train,
    /// Sets the threshold.
    Val,
    /// Measures; nothing is decided on it.
    Test,
}

/// One picture of a data set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// The picture.
    pub path: PathBuf,
    /// Whether it shows a good part, if that is known.
    pub good: Option<bool>,
    /// `good`, or the kind of defect (the folder's or label's name), or `unknown`.
    pub kind: String,
    /// Its mask: zero is good, anything else defect.
    pub mask: Option<PathBuf>,
}

/// A data set, ready to learn from and to measure on. Each part is in sorted order of paths.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Dataset {
    /// `mvtec` (the layout), `folder` or `manifest`, or the name of the root folder.
    pub name: String,
    /// The category; the folder's name where there are no categories.
    pub category: String,
    /// The folder it was read from.
    pub root: PathBuf,
    /// Good pictures to learn from.
    pub train: Vec<Sample>,
    /// Pictures to set the threshold with.
    pub val: Vec<Sample>,
    /// Pictures to measure on.
    pub test: Vec<Sample>,
    /// What was skipped or decided, a sentence each.
    pub notes: Vec<String>,
}

/// Where the validation pictures come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// `val_ratio` of the good training pictures are held out: no test picture takes part in any decision.
    #[default]
    LeakFree,
    /// All good training pictures train and validation is the test set itself, as in the papers. Flatters.
    Paper,
}

/// Which data, as in configuration files and on the command line.
///
/// - `manifest`: a CSV or JSONL file that lists everything;
/// - `good` (and `bad`): folders, files or patterns;
/// - `data`: an MVTec-like category folder (`train/good`, `test/<kind>`, `ground_truth/<kind>`), the root above it together
///   with `category`, a folder with `good/` (and `bad/`), or a folder of good pictures;
/// - nothing: `datasets/MVTec`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataSpec {
    /// Root or category folder.
    pub data: Option<PathBuf>,
    /// Category below the root.
    pub category: Option<String>,
    /// Folders, files or patterns of good pictures.
    pub good: Vec<String>,
    /// Folders, files or patterns of bad pictures.
    pub bad: Vec<String>,
    /// Folder of masks, named as their picture or with `_mask` added.
    pub masks: Option<PathBuf>,
    /// CSV or JSONL file with `path`, `label`, `mask`, `split`.
    pub manifest: Option<PathBuf>,
    /// Share of the good training pictures held out for validation.
    pub val_ratio: f64,
    /// Where validation pictures come from.
    pub protocol: Protocol,
}

impl Default for DataSpec {
    fn default() -> Self {
        DataSpec {
            data: None,
            category: None,
            good: Vec::new(),
            bad: Vec::new(),
            masks: None,
            manifest: None,
            val_ratio: 0.1,
            protocol: Protocol::LeakFree,
        }
    }
}

impl Dataset {
    /// Finds the pictures; none is decoded. The same files and `seed` give the same parts.
    ///
    /// # Errors
    /// [`DataError`] saying what was looked for and where, if there is nothing to learn from or the settings contradict
    /// each other.
    pub fn open(spec: &DataSpec, seed: u64) -> Result<Dataset> {
        if !(0.0..1.0).contains(&spec.val_ratio) {
            let why = format!("{}; a share from 0 to below 1 is possible", spec.val_ratio);
            return Err(DataError::Setting { name: "val_ratio", why });
        }
        let mut dataset = match (&spec.manifest, spec.good.is_empty()) {
            (Some(_), false) => return Err(both("manifest", "good")),
            (Some(file), true) => manifest::open(file, spec.data.as_deref())?,
            (None, false) => folder::open_lists(spec, seed)?,
            (None, true) if !spec.bad.is_empty() => {
                let why = "given without `good`; there is nothing to learn from".to_owned();
                return Err(DataError::Setting { name: "bad", why });
            }
            (None, true) => open_folder(spec, seed)?,
        };
        split::finish(&mut dataset, spec, seed)?;
        Ok(dataset)
    }

    /// The pictures of one part.
    pub fn part(&self, split: Split) -> &[Sample] {
        match split {
            Split::Train => &self.train,
            Split::Val => &self.val,
            Split::Test => &self.test,
        }
    }
}

fn both(name: &'static str, other: &str) -> DataError {
    DataError::Setting { name, why: format!("given together with `{other}`; give one of them") }
}

fn open_folder(spec: &DataSpec, seed: u64) -> Result<Dataset> {
    let data = spec.data.as_deref().unwrap_or(Path::new(mvtec::DEFAULT_ROOT));
    if !data.is_dir() {
        let what = if data.exists() {
            "it is a file; give a folder, or `manifest` for a list".to_owned()
        } else if spec.data.is_none() {
            format!("give `data`, or put MVTec AD there.\n{}", mvtec::FETCH)
        } else {
            "it was to be read as a data set".to_owned()
        };
        let path = data.to_path_buf();
        return Err(DataError::Missing { path, what });
    }
    // A category may also be a plain folder below the root.
    let plain = spec.category.as_deref().filter(|c| mvtec::is_name(c)).map(|c| data.join(c));
    if let Some(folder) = plain.filter(|f| f.is_dir() && !f.join("train").is_dir()) {
        return folder::open_plain(&folder, spec, seed);
    }
    match mvtec::find(data, spec.category.as_deref())? {
        Some(category) => mvtec::open(&category, spec.masks.as_deref()),
        None => folder::open_plain(data, spec, seed),
    }
}
