use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::{Result, Sample, walk};

/// The masks of one folder by the stem of their picture: `<stem>.png` or `<stem>_mask.png`.
#[derive(Debug, Default)]
pub(crate) struct Masks {
    by_stem: BTreeMap<String, PathBuf>,
    used: BTreeSet<String>,
}

impl Masks {
    /// The masks in `folder` and below; none if it is not there.
    pub(crate) fn below(folder: &Path) -> Result<Masks> {
        let paths = if folder.is_dir() { walk::pictures_below(folder)? } else { Vec::new() };
        let by_stem = paths.into_iter().map(|p| (stem(&p), p)).collect();
        Ok(Masks { by_stem, used: BTreeSet::new() })
    }

    /// The mask of a picture.
    pub(crate) fn take(&mut self, picture: &Path) -> Option<PathBuf> {
        let stem = stem(picture);
        let name = [format!("{stem}_mask"), stem].into_iter().find(|n| self.by_stem.contains_key(n))?;
        let path = self.by_stem.get(&name).cloned();
        self.used.insert(name);
        path
    }

    /// Masks that no picture asked for.
    pub(crate) fn unused(&self) -> Vec<&PathBuf> {
        self.by_stem.iter().filter(|(name, _)| !self.used.contains(*name)).map(|(_, path)| path).collect()
    }
}

fn stem(path: &Path) -> String {
    path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Says which masks have no picture and how many bad pictures have no mask.
pub(crate) fn notes(test: &[Sample], unused: &[PathBuf], notes: &mut Vec<String>) {
    if let Some(first) = unused.first() {
        let more = if unused.len() > 1 { format!(" and {} more", unused.len() - 1) } else { String::new() };
        notes.push(format!("mask without a picture: {}{more}", first.display()));
    }
    let bad: Vec<&Sample> = test.iter().filter(|s| s.good == Some(false)).collect();
    let without: Vec<&&Sample> = bad.iter().filter(|s| s.mask.is_none()).collect();
    match without.first() {
        Some(_) if without.len() == bad.len() => notes.push("there are no masks: no pixel metrics".to_owned()),
        Some(first) => notes.push(format!(
            "{} of {} bad pictures have no mask, the first is {}",
            without.len(),
            bad.len(),
            first.path.display()
        )),
        None => {}
    }
}
