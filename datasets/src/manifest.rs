//! Lists of pictures as CSV (`path,label,mask,split`, with a header) or JSONL (objects with these keys).

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::folder::folder_name;
use crate::{DataError, Dataset, Result, Sample, Split, masks};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    path: PathBuf,
    #[serde(default)]
    label: Option<String>,
    #[serde(default)]
    mask: Option<PathBuf>,
    #[serde(default)]
    split: Option<String>,
}

/// Reads a manifest; relative paths start at `base`, or at the manifest's folder.
pub(crate) fn open(file: &Path, base: Option<&Path>) -> Result<Dataset> {
    let text = std::fs::read_to_string(file).map_err(DataError::io(file))?;
    let base = base.or_else(|| file.parent()).unwrap_or(Path::new(""));
    let mut dataset = Dataset {
        name: "manifest".to_owned(),
        category: folder_name(&file.with_extension("")),
        root: base.to_path_buf(),
        train: Vec::new(),
        val: Vec::new(),
        test: Vec::new(),
        notes: Vec::new(),
    };
    let json = file.extension().is_some_and(|e| ["jsonl", "ndjson", "json"].iter().any(|x| e.eq_ignore_ascii_case(x)));
    let rows = if json { json_rows(file, &text)? } else { csv_rows(file, &text)? };
    for (line, row) in rows {
        let fail = |why: String| DataError::Manifest { path: file.to_path_buf(), line, why };
        if row.path.as_os_str().is_empty() {
            return Err(fail("the path is empty".to_owned()));
        }
        let (good, kind) = label(row.label.as_deref());
        let part = part(row.split.as_deref(), good).map_err(fail)?;
        if good == Some(false) && part == Split::Train {
            return Err(fail(format!(
                "{} is labelled '{kind}', but training takes good parts only",
                row.path.display()
            )));
        }
        let mask = row.mask.filter(|m| !m.as_os_str().is_empty()).map(|m| base.join(m));
        if let Some(missing) = mask.as_ref().filter(|m| !m.is_file()) {
            return Err(fail(format!("there is no mask {}", missing.display())));
        }
        let sample = Sample { path: base.join(row.path), good, kind, mask };
        match part {
            Split::Train => dataset.train.push(sample),
            Split::Val => dataset.val.push(sample),
            Split::Test => dataset.test.push(sample),
        }
    }
    for part in [&mut dataset.train, &mut dataset.val, &mut dataset.test] {
        part.sort_by(|a, b| a.path.cmp(&b.path));
        let before = part.len();
        part.dedup_by(|a, b| a.path == b.path);
        if part.len() < before {
            dataset.notes.push(format!("{} pictures are listed twice and were taken once", before - part.len()));
        }
    }
    if dataset.train.is_empty() {
        return Err(DataError::NoImages {
            place: file.display().to_string(),
            what: " to learn from",
            looked: "rows with split 'train', or a good label and no split".to_owned(),
            advice: "Columns are path, label (good or a kind of defect), mask and split (train, val, test).".to_owned(),
        });
    }
    masks::notes(&dataset.test, &[], &mut dataset.notes);
    Ok(dataset)
}

fn csv_rows(file: &Path, text: &str) -> Result<Vec<(u64, Row)>> {
    let header = text.lines().next().unwrap_or_default();
    let delimiter = if header.contains(';') && !header.contains(',') { b';' } else { b',' };
    // A byte order mark, as spreadsheets write it, is not part of the first name.
    let text = text.trim_start_matches('\u{feff}');
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).delimiter(delimiter).from_reader(text.as_bytes());
    let fail = |line: u64, why: String| DataError::Manifest { path: file.to_path_buf(), line, why };
    let headers = reader.headers().map_err(|e| fail(1, e.to_string()))?.clone();
    if !headers.iter().any(|h| h == "path") {
        return Err(fail(1, "the header has no column 'path'; path, label, mask and split are read".to_owned()));
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|e| fail(e.position().map_or(0, csv::Position::line), e.to_string()))?;
        let line = record.position().map_or(0, csv::Position::line);
        rows.push((line, record.deserialize(Some(&headers)).map_err(|e| fail(line, e.to_string()))?));
    }
    Ok(rows)
}

fn json_rows(file: &Path, text: &str) -> Result<Vec<(u64, Row)>> {
    let lines = (1u64..).zip(text.lines()).filter(|(_, text)| !text.trim().is_empty());
    let parse = |(line, text): (u64, &str)| match serde_json::from_str(text) {
        Ok(row) => Ok((line, row)),
        Err(e) => Err(DataError::Manifest { path: file.to_path_buf(), line, why: e.to_string() }),
    };
    lines.map(parse).collect()
}

fn label(text: Option<&str>) -> (Option<bool>, String) {
    let text = text.unwrap_or_default().trim();
    match text.to_ascii_lowercase().as_str() {
        "" => (None, "unknown".to_owned()),
        "good" | "ok" | "normal" | "0" => (Some(true), "good".to_owned()),
        "bad" | "defect" | "anomaly" | "abnormal" | "ng" | "nok" | "1" => (Some(false), "bad".to_owned()),
        _ => (Some(false), text.to_owned()),
    }
}

fn part(text: Option<&str>, good: Option<bool>) -> std::result::Result<Split, String> {
    let text = text.unwrap_or_default().trim();
    match text.to_ascii_lowercase().as_str() {
        "" if good == Some(true) => Ok(Split::Train),
        "" | "test" => Ok(Split::Test),
        "train" | "training" => Ok(Split::Train),
        "val" | "valid" | "validation" => Ok(Split::Val),
        _ => Err(format!("split '{text}'; train, val and test are possible")),
    }
}
