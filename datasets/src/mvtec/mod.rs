//! MVTec AD (Bergmann et al., CVPR 2019) and every data set in its layout.
//!
//! ```text
//! <root>/<category>/train/good/*.png
//!                   test/good/*.png
//!                   test/<kind>/*.png
//!                   ground_truth/<kind>/<stem>_mask.png
//!                   validation/good/*.png              (some later sets)
//! ```

mod check;

use std::path::{Component, Path, PathBuf};

pub use self::check::{Counts, Report, check, manifest};
use crate::folder::folder_name;
use crate::masks::{self, Masks};
use crate::{DataError, Dataset, Result, Sample, walk};

/// Where the data is looked for if nothing is said.
pub const DEFAULT_ROOT: &str = "datasets/MVTec";

/// The categories of MVTec AD.
pub const CATEGORIES: [&str; 15] = [
    "bottle",
    "cable",
    "capsule",
    "carpet",
    "grid",
    "hazelnut",
    "leather",
    "metal_nut",
    "pill",
    "screw",
    "tile",
    "toothbrush",
    "transistor",
    "wood",
    "zipper",
];

/// Under what terms MVTec AD may be used.
pub const LICENCE: &str = "MVTec AD is copyright 2019 MVTec Software GmbH, licensed under Creative Commons \
Attribution-NonCommercial-ShareAlike 4.0 International (https://creativecommons.org/licenses/by-nc-sa/4.0/): not for \
commercial use. Please cite: Paul Bergmann, Michael Fauser, David Sattlegger, Carsten Steger, \"A Comprehensive \
Real-World Dataset for Unsupervised Anomaly Detection\", IEEE Conference on Computer Vision and Pattern Recognition, 2019.";

/// How to get MVTec AD; it is given out through a form, so no program can fetch it.
pub const FETCH: &str = "MVTec AD is given out through a form: open \
https://www.mvtec.com/company/research/datasets/mvtec-ad, download the archive (4.9 GB) and unpack it:\n\
    mkdir -p datasets/MVTec && tar xf mvtec_anomaly_detection.tar.xz -C datasets/MVTec\n\
then check it with `blemish data check`. A category by itself may be unpacked there as well.";

/// A category in this layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Category {
    /// The folder's name.
    pub name: String,
    /// The folder with `train/` in it.
    pub path: PathBuf,
}

/// The categories below a root, sorted by name.
///
/// # Errors
/// [`DataError::Io`] if the root cannot be read.
pub fn categories(root: &Path) -> Result<Vec<Category>> {
    let folders = walk::folders(root)?.into_iter().filter(|f| f.join("train").is_dir());
    Ok(folders.map(|path| Category { name: folder_name(&path), path }).collect())
}

/// Whether a category's name is the name of a folder, not a path.
pub(crate) fn is_name(category: &str) -> bool {
    let mut parts = Path::new(category).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
}

/// The category meant by a folder and perhaps a name; `None` if the folder is not in this layout at all.
pub(crate) fn find(data: &Path, name: Option<&str>) -> Result<Option<Category>> {
    let itself = || Category { name: folder_name(data), path: data.to_path_buf() };
    let is_category = data.join("train").is_dir();
    let mut present = if is_category { vec![itself()] } else { categories(data)? };
    match name {
        None if present.len() > 1 => {
            let present = present.into_iter().map(|c| c.name).collect();
            Err(DataError::WhichCategory { root: data.to_path_buf(), present })
        }
        None => Ok(present.pop()),
        Some(name) => match present.iter().position(|c| c.name == name) {
            Some(i) => Ok(Some(present.swap_remove(i))),
            None => Err(unknown(data, name, present.into_iter().map(|c| c.name).collect())),
        },
    }
}

fn unknown(root: &Path, name: &str, present: Vec<String>) -> DataError {
    let near = |candidates: &mut dyn Iterator<Item = &str>| {
        let near = candidates.map(|c| (strsim::damerau_levenshtein(c, name), c.to_owned()));
        near.filter(|(distance, _)| *distance <= 1 + name.len() / 3).min().map(|(_, c)| c)
    };
    let hint = match near(&mut present.iter().map(String::as_str)) {
        Some(c) => format!(" Did you mean '{c}'?"),
        None if CATEGORIES.contains(&name) => format!(" It is part of MVTec AD.\n{FETCH}"),
        None => String::new(),
    };
    let present = if present.is_empty() { "none".to_owned() } else { present.join(", ") };
    DataError::UnknownCategory { name: name.to_owned(), root: root.to_path_buf(), hint, present }
}

/// Lists one category; `masks` replaces `ground_truth`.
pub(crate) fn open(category: &Category, mask_root: Option<&Path>) -> Result<Dataset> {
    let root = &category.path;
    let mut dataset = Dataset {
        name: root.canonicalize().ok().and_then(|p| p.parent().map(folder_name)).unwrap_or_else(|| "mvtec".to_owned()),
        category: category.name.clone(),
        root: root.clone(),
        train: good(&root.join("train"))?,
        val: Vec::new(),
        test: Vec::new(),
        notes: Vec::new(),
    };
    if dataset.train.is_empty() {
        return Err(DataError::NoImages {
            place: root.display().to_string(),
            what: " to learn from",
            looked: format!("PNG, JPEG, BMP, TIFF and WebP in {}", root.join("train").join("good").display()),
            advice: "Put pictures of good parts there, or point `data` elsewhere.".to_owned(),
        });
    }
    let left_out = walk::folders(&root.join("train"))?.iter().filter(|f| folder_name(f) != "good").count();
    if left_out > 0 {
        dataset
            .notes
            .push(format!("{left_out} folders beside train/good were left out: training takes good parts only"));
    }
    for name in ["validation", "val"] {
        if root.join(name).is_dir() {
            dataset.val = good(&root.join(name))?;
        }
    }
    let test = root.join("test");
    if !test.is_dir() {
        dataset.notes.push(format!("there is no {}: nothing to test on", test.display()));
        return Ok(dataset);
    }
    let mask_root = mask_root.map_or_else(|| root.join("ground_truth"), Path::to_path_buf);
    let (mut unused, mut others) = (Vec::new(), 0);
    for folder in walk::folders(&test)? {
        let kind = folder_name(&folder);
        let is_good = kind == "good";
        let mut masks = if is_good { Masks::default() } else { Masks::below(&mask_root.join(&kind))? };
        let (pictures, other) = walk::pictures(&folder)?;
        others += other;
        for path in pictures {
            let mask = masks.take(&path);
            dataset.test.push(Sample { path, good: Some(is_good), kind: kind.clone(), mask });
        }
        unused.extend(masks.unused().into_iter().cloned());
    }
    if others > 0 {
        dataset.notes.push(format!("{others} files in {} are not pictures and were passed over", test.display()));
    }
    masks::notes(&dataset.test, &unused, &mut dataset.notes);
    Ok(dataset)
}

/// The pictures in `part/good`, or directly in `part` where there is no such folder.
fn good(part: &Path) -> Result<Vec<Sample>> {
    let folder = part.join("good");
    let (pictures, _) = walk::pictures(if folder.is_dir() { &folder } else { part })?;
    let sample = |path| Sample { path, good: Some(true), kind: "good".to_owned(), mask: None };
    Ok(pictures.into_iter().map(sample).collect())
}
