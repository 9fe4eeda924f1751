//! Plain folders and lists of pictures.

use std::path::{Path, PathBuf};

use crate::masks::{self, Masks};
use crate::{DataError, DataSpec, Dataset, Result, Sample, split, walk};

const GOOD: [&str; 4] = ["good", "ok", "normal", "train"];
const MASKS: [&str; 3] = ["masks", "mask", "ground_truth"];
/// Share of the good pictures that go to the test part where there are bad ones to tell them from.
const TEST_RATIO: f64 = 0.2;

/// `good` and `bad`: folders, files or patterns, relative to `data` if that is given.
pub(crate) fn open_lists(spec: &DataSpec, seed: u64) -> Result<Dataset> {
    let place = |list: &[String]| -> Result<Vec<PathBuf>> {
        let base = spec.data.as_deref();
        let from = |a: &String| base.map_or_else(|| a.clone(), |b| b.join(a).display().to_string());
        walk::expand(&list.iter().map(from).collect::<Vec<_>>())
    };
    let good = place(&spec.good)?;
    let bad = place(&spec.bad)?.into_iter().map(|p| ("bad".to_owned(), p)).collect();
    let root = spec.data.clone().or_else(|| good.first().and_then(|p| p.parent()).map(Path::to_path_buf));
    let mut dataset = Dataset {
        name: "folder".to_owned(),
        category: spec.category.clone().unwrap_or_else(|| "images".to_owned()),
        root: root.unwrap_or_default(),
        train: Vec::new(),
        val: Vec::new(),
        test: Vec::new(),
        notes: Vec::new(),
    };
    fill(&mut dataset, good, bad, spec.masks.as_deref(), seed)?;
    Ok(dataset)
}

/// A folder with `good/` (all other folders are kinds of defects), or one that holds good pictures directly.
pub(crate) fn open_plain(data: &Path, spec: &DataSpec, seed: u64) -> Result<Dataset> {
    let mut dataset = Dataset {
        name: "folder".to_owned(),
        category: folder_name(data),
        root: data.to_path_buf(),
        train: Vec::new(),
        val: Vec::new(),
        test: Vec::new(),
        notes: Vec::new(),
    };
    let folders = walk::folders(data)?;
    let named = |names: &[&str]| {
        folders.iter().find(|f| names.contains(&folder_name(f).to_ascii_lowercase().as_str())).cloned()
    };
    let (good, mut bad) = match named(&GOOD) {
        Some(good) => {
            let mask_folder = named(&MASKS);
            let mut bad = Vec::new();
            for folder in folders.iter().filter(|f| **f != good && Some(*f) != mask_folder.as_ref()) {
                bad.extend(walk::pictures_below(folder)?.into_iter().map(|p| (folder_name(folder), p)));
            }
            (walk::pictures_below(&good)?, bad)
        }
        None => {
            let (pictures, others) = walk::pictures(data)?;
            if others > 0 {
                dataset.notes.push(format!("{others} files are not pictures and were passed over"));
            }
            if !folders.is_empty() && !pictures.is_empty() {
                dataset.notes.push(format!("{} folders in {} were not looked into", folders.len(), data.display()));
            }
            (pictures, Vec::new())
        }
    };
    if good.is_empty() {
        return Err(DataError::NoImages {
            place: data.display().to_string(),
            what: " to learn from",
            looked: format!(
                "{} (MVTec layout), {} and for images directly inside {}",
                data.join("train").join("good").display(),
                data.join("good").display(),
                data.display()
            ),
            advice: "Point `data` at a folder of good images, or give `good` (and `bad`).".to_owned(),
        });
    }
    bad.sort();
    let mask_folder = spec.masks.clone().or_else(|| named(&MASKS));
    fill(&mut dataset, good, bad, mask_folder.as_deref(), seed)?;
    Ok(dataset)
}

fn fill(
    dataset: &mut Dataset,
    good: Vec<PathBuf>,
    bad: Vec<(String, PathBuf)>,
    mask_folder: Option<&Path>,
    seed: u64,
) -> Result<()> {
    let sample = |path| Sample { path, good: Some(true), kind: "good".to_owned(), mask: None };
    dataset.train = good.into_iter().map(sample).collect();
    if bad.is_empty() {
        dataset.notes.push("there are no bad pictures: nothing to test on".to_owned());
        return Ok(());
    }
    let count = split::share(dataset.train.len(), TEST_RATIO);
    // Not the stream that chooses the validation part.
    dataset.test = split::hold_out(&mut dataset.train, count, seed ^ 0x7e57);
    dataset.notes.push(format!("{count} good pictures are held out for the test, beside {} bad ones", bad.len()));
    if let Some(folder) = mask_folder.filter(|f| !f.is_dir()) {
        let what = "masks were to be there".to_owned();
        return Err(DataError::Missing { path: folder.to_path_buf(), what });
    }
    let mut all = mask_folder.map(Masks::below).transpose()?.unwrap_or_default();
    let mut of_kind: Vec<(String, Masks)> = Vec::new();
    for (kind, path) in bad {
        // `masks/<kind>/` where there is such a folder, or else all of `masks/`.
        let mask = match mask_folder.map(|f| f.join(&kind)).filter(|f| f.is_dir()) {
            Some(folder) => {
                if of_kind.last().is_none_or(|(k, _)| *k != kind) {
                    of_kind.push((kind.clone(), Masks::below(&folder)?));
                }
                of_kind.last_mut().and_then(|(_, masks)| masks.take(&path))
            }
            None => all.take(&path),
        };
        dataset.test.push(Sample { path, good: Some(false), kind, mask });
    }
    let unused: Vec<PathBuf> = if of_kind.is_empty() {
        all.unused().into_iter().cloned().collect()
    } else {
        of_kind.iter().flat_map(|(_, m)| m.unused()).cloned().collect()
    };
    dataset.test.sort_by(|a, b| a.path.cmp(&b.path));
    masks::notes(&dataset.test, &unused, &mut dataset.notes);
    Ok(())
}

/// The last part of a path, also of `.` and `..`.
pub(crate) fn folder_name(path: &Path) -> String {
    let name = |p: &Path| p.file_name().map(|n| n.to_string_lossy().into_owned());
    name(path).or_else(|| path.canonicalize().ok().and_then(|p| name(&p))).unwrap_or_else(|| "images".to_owned())
}
