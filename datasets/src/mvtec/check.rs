use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Category, categories};
use crate::decode::read_size;
use crate::{DataError, Result, Sample};

/// Numbers of pictures of a category.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// In `train/good`.
    pub train: usize,
    /// In `test/good`.
    pub test_good: usize,
    /// In all other folders of `test`.
    pub test_bad: usize,
}

#[derive(Deserialize)]
struct Manifest {
    category: BTreeMap<String, Counts>,
}

/// What [`check`] found in one category.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The category.
    pub category: String,
    /// Pictures found.
    pub found: Counts,
    /// Pictures there should be, if the category is one of MVTec AD's.
    pub expected: Option<Counts>,
    /// What is wrong, a sentence each; empty if all is well.
    pub problems: Vec<String>,
}

/// The published numbers of pictures of MVTec AD's categories.
///
/// # Errors
/// None in practice: the table is part of the program and tested.
pub fn manifest() -> Result<BTreeMap<String, Counts>> {
    let text = include_str!("../../manifests/mvtec.toml");
    toml::from_str::<Manifest>(text).map(|m| m.category).map_err(|e| DataError::Manifest {
        path: "manifests/mvtec.toml".into(),
        line: 0,
        why: e.to_string(),
    })
}

/// Checks the category in `root`, or all categories below it: numbers of pictures, a mask of the right size for every
/// defect, and the header of every file.
///
/// # Errors
/// [`DataError::NoImages`] if there is no category at all, [`DataError::Io`] for folders that cannot be read.
pub fn check(root: &Path) -> Result<Vec<Report>> {
    if !root.is_dir() {
        return Err(DataError::Missing { path: root.to_path_buf(), what: super::FETCH.to_owned() });
    }
    let found = match super::find(root, None) {
        Ok(category) => category.into_iter().collect(),
        Err(DataError::WhichCategory { .. }) => categories(root)?,
        Err(e) => return Err(e),
    };
    if found.is_empty() {
        return Err(DataError::NoImages {
            place: root.display().to_string(),
            what: " in the MVTec layout",
            looked: "train/good in it, and in each folder below".to_owned(),
            advice: super::FETCH.to_owned(),
        });
    }
    let expected = manifest()?;
    found.iter().map(|category| check_category(category, expected.get(&category.name).copied())).collect()
}

fn check_category(category: &Category, expected: Option<Counts>) -> Result<Report> {
    let data = super::open(category, None)?;
    let test_good = data.test.iter().filter(|s| s.good == Some(true)).count();
    let found = Counts { train: data.train.len(), test_good, test_bad: data.test.len() - test_good };
    let mut problems: Vec<String> = data.notes.iter().filter(|n| n.starts_with("mask without")).cloned().collect();
    if let Some(expected) = expected.filter(|e| *e != found) {
        problems.push(format!(
            "there are {} + {} + {} pictures (training, good test, bad test) instead of {} + {} + {}",
            found.train, found.test_good, found.test_bad, expected.train, expected.test_good, expected.test_bad
        ));
    }
    let samples: Vec<&Sample> = data.train.iter().chain(&data.val).chain(&data.test).collect();
    let each: Vec<Vec<String>> = samples.par_iter().map(|s| check_sample(s)).collect();
    problems.extend(each.into_iter().flatten());
    Ok(Report { category: category.name.clone(), found, expected, problems })
}

fn check_sample(sample: &Sample) -> Vec<String> {
    let size = match read_size(&sample.path) {
        Ok(size) => size,
        Err(e) => return vec![e.to_string()],
    };
    match &sample.mask {
        None if sample.good == Some(false) => vec![format!("{}: has no mask", sample.path.display())],
        None => Vec::new(),
        Some(mask) => match read_size(mask) {
            Ok(of_mask) if of_mask == size => Vec::new(),
            Ok((h, w)) => {
                vec![format!("{}: {w}x{h} pixels, its picture has {}x{}", mask.display(), size.1, size.0)]
            }
            Err(e) => vec![e.to_string()],
        },
    }
}
