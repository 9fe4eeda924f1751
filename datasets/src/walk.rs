use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{DataError, Result};

/// Deepest folder searched; symbolic links that lead in circles end before.
const MAX_DEPTH: usize = 32;

/// Whether a file's name says it is a picture this crate reads, and not a hidden file.
pub(crate) fn is_picture(path: &Path) -> bool {
    const EXTENSIONS: [&str; 7] = ["png", "jpg", "jpeg", "bmp", "tif", "tiff", "webp"];
    let hidden = path.file_name().is_none_or(|n| n.to_string_lossy().starts_with('.'));
    let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    !hidden && extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str()))
}

/// Entries of a folder in sorted order, without hidden ones.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(DataError::io(folder))? {
        let entry = entry.map_err(DataError::io(folder))?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// The folders in a folder, sorted.
pub(crate) fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(entries(folder)?.into_iter().filter(|p| p.is_dir()).collect())
}

/// Pictures directly in a folder, sorted; and the number of other files.
pub(crate) fn pictures(folder: &Path) -> Result<(Vec<PathBuf>, usize)> {
    let files: Vec<PathBuf> = entries(folder)?.into_iter().filter(|p| !p.is_dir()).collect();
    let all = files.len();
    let pictures: Vec<PathBuf> = files.into_iter().filter(|p| is_picture(p)).collect();
    let others = all - pictures.len();
    Ok((pictures, others))
}

/// Pictures in a folder and all folders below, sorted. A folder reached again through a link is searched once.
pub(crate) fn pictures_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    descend(folder, 0, &mut BTreeSet::new(), &mut found)?;
    found.sort();
    Ok(found)
}

fn descend(folder: &Path, depth: usize, seen: &mut BTreeSet<PathBuf>, found: &mut Vec<PathBuf>) -> Result<()> {
    let real = fs::canonicalize(folder).map_err(DataError::io(folder))?;
    if depth > MAX_DEPTH || !seen.insert(real) {
        return Ok(());
    }
    for path in entries(folder)? {
        if path.is_dir() {
            descend(&path, depth + 1, seen, found)?;
        } else if is_picture(&path) {
            found.push(path);
        }
    }
    Ok(())
}

/// The pictures that command-line arguments mean: files (whatever their name), folders (with all below) and patterns
/// (`parts/*.png`, `**` for any depth); sorted, each once.
///
/// # Errors
/// [`DataError::Missing`] for a path that is not there, [`DataError::Pattern`], [`DataError::NoImages`] for an argument that
/// means no picture.
pub fn expand(arguments: &[String]) -> Result<Vec<PathBuf>> {
    let mut found = BTreeSet::new();
    for argument in arguments {
        found.extend(expand_one(argument)?);
    }
    Ok(found.into_iter().collect())
}

fn expand_one(argument: &str) -> Result<Vec<PathBuf>> {
    let path = Path::new(argument);
    let nothing = |looked: String| DataError::NoImages {
        place: argument.to_owned(),
        what: "",
        looked,
        advice: "PNG, JPEG, BMP, TIFF and WebP are read.".to_owned(),
    };
    if path.is_dir() {
        let found = pictures_below(path)?;
        return if found.is_empty() {
            Err(nothing("pictures in it and in all folders below".to_owned()))
        } else {
            Ok(found)
        };
    }
    // A file may have brackets in its name: what exists is no pattern.
    if path.exists() {
        return Ok(vec![path.to_path_buf()]);
    }
    if !argument.contains(['*', '?', '[']) {
        let what = "a picture, a folder or a pattern was expected".to_owned();
        return Err(DataError::Missing { path: path.to_path_buf(), what });
    }
    let matches =
        glob::glob(argument).map_err(|e| DataError::Pattern { pattern: argument.to_owned(), why: e.msg.to_owned() })?;
    // Folders that may not be read are passed over, as shells do.
    let found: Vec<PathBuf> = matches.flatten().filter(|p| is_picture(p) && !p.is_dir()).collect();
    if found.is_empty() { Err(nothing("pictures that match the pattern".to_owned())) } else { Ok(found) }
}
