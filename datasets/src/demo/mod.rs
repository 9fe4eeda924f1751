//! A procedural demo set: `weave`, a twill fabric, and `bolt`, a threaded part lying on a plain ground at any angle; with
//! exact masks, in the MVTec layout.
//!
//! | category | defects |
//! |---|---|
//! | `weave` | `cut`, `hole`, `stain`, `thread` (a stray one) |
//! | `bolt` | `bent_tip`, `chip` (thread broken away), `scratch`, `stain` |
//!
//! Defects vary in size and contrast down to hardly visible. A picture depends on the seed and its own number alone: the same
//! seed gives the same bytes, whatever the number of threads or of other pictures.

mod bolt;
mod noise;
mod scene;
mod shape;
mod weave;

use std::fs;
use std::path::{Path, PathBuf};

use blemish_core::Session;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use self::scene::Picture;
use crate::{DataError, Result};

/// How many pictures, and how large.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DemoSpec {
    /// Good training pictures of each category.
    pub good_train: usize,
    /// Good test pictures of each category.
    pub good_test: usize,
    /// Bad test pictures of each category, spread evenly over its defects.
    pub bad_test: usize,
    /// Height and width in pixels, 64 to 2048.
    pub size: usize,
    /// Everything random comes from it.
    pub seed: u64,
}

impl Default for DemoSpec {
    fn default() -> Self {
        DemoSpec { good_train: 60, good_test: 20, bad_test: 20, size: 256, seed: 0 }
    }
}

/// The names of the two categories.
pub const CATEGORIES: [&str; 2] = ["bolt", "weave"];

/// Written beside the categories; says which spec they were drawn from.
const MARKER: &str = "demo.json";
/// Counted up whenever the pictures change.
const VERSION: u32 = 1;

#[derive(PartialEq, Serialize, Deserialize)]
struct Marker {
    version: u32,
    spec: DemoSpec,
}

/// One picture to draw.
struct Job {
    category: &'static str,
    /// `None` for a good part.
    defect: Option<&'static str>,
    /// `train` or `test`.
    part: &'static str,
    /// Number in its folder.
    number: usize,
    /// Number in its category, of all parts: the picture's own random stream.
    stream: u64,
}

/// Draws the set into `root` (`root/weave/...`, `root/bolt/...`).
///
/// Drawn beside `root` and then renamed: either the whole set is there or nothing. A set drawn earlier is kept if it is the
/// same, and replaced otherwise.
///
/// # Errors
/// [`DataError::Setting`] for a size that cannot be drawn or a `root` that holds something else, [`DataError::Io`], and an
/// interruption.
pub fn write(root: &Path, spec: &DemoSpec, session: &Session<'_>) -> Result<()> {
    if !(64..=2048).contains(&spec.size) {
        let why = format!("{} pixels; 64 to 2048 are possible", spec.size);
        return Err(DataError::Setting { name: "size", why });
    }
    let marker = Marker { version: VERSION, spec: spec.clone() };
    let old = existing(root)?;
    if old.as_ref() == Some(&marker) {
        return Ok(());
    }
    let parent = match root.parent() {
        Some(parent) if parent != Path::new("") => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    fs::create_dir_all(&parent).map_err(DataError::io(&parent))?;
    let temporary = tempfile::Builder::new().prefix(".demo-").tempdir_in(&parent).map_err(DataError::io(&parent))?;
    let fresh = temporary.path().join("new");
    draw_all(&fresh, spec, session)?;
    let text = serde_json::to_string_pretty(&marker).unwrap_or_default();
    let file = fresh.join(MARKER);
    fs::write(&file, text).map_err(DataError::io(&file))?;
    if root.exists() {
        fs::rename(root, temporary.path().join("old")).map_err(DataError::io(root))?;
    }
    fs::rename(&fresh, root).map_err(DataError::io(root))
}

/// The marker of a set drawn earlier; `None` if there is nothing, an error if there is something else.
fn existing(root: &Path) -> Result<Option<Marker>> {
    if !root.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(root.join(MARKER)).unwrap_or_default();
    let empty = root.is_dir() && fs::read_dir(root).map_err(DataError::io(root))?.next().is_none();
    // A marker of another version has the same name but perhaps other fields.
    if text.is_empty() && !empty {
        let why = format!("{} is there already and is no demo set; choose another folder", root.display());
        return Err(DataError::Setting { name: "demo", why });
    }
    Ok(serde_json::from_str(&text).ok())
}

fn draw_all(root: &Path, spec: &DemoSpec, session: &Session<'_>) -> Result<()> {
    let jobs = jobs(spec);
    for job in &jobs {
        for path in [Some(picture_path(root, job)), mask_path(root, job)].into_iter().flatten() {
            let folder = path.parent().unwrap_or(root);
            fs::create_dir_all(folder).map_err(DataError::io(folder))?;
        }
    }
    let task = session.task("drawing", jobs.len());
    jobs.par_iter().try_for_each(|job| {
        let picture = draw(job, spec);
        let size = spec.size as u32;
        save(&picture_path(root, job), &picture.rgb, size, ExtendedColorType::Rgb8)?;
        if let Some(path) = mask_path(root, job) {
            save(&path, &picture.mask, size, ExtendedColorType::L8)?;
        }
        task.step(1).map_err(DataError::Core)
    })
}

fn jobs(spec: &DemoSpec) -> Vec<Job> {
    let mut jobs = Vec::new();
    for (category, defects) in [("bolt", bolt::DEFECTS), ("weave", weave::DEFECTS)] {
        // Streams lie far apart, so that more pictures of one part leave the others as they are.
        let good = |part, count, first: u64| {
            (0..count).map(move |number| Job { category, defect: None, part, number, stream: first + number as u64 })
        };
        jobs.extend(good("train", spec.good_train, 0));
        jobs.extend(good("test", spec.good_test, 1 << 32));
        for i in 0..spec.bad_test {
            let defect = Some(defects[i % defects.len()]);
            let (number, stream) = (i / defects.len(), (2 << 32) + i as u64);
            jobs.push(Job { category, defect, part: "test", number, stream });
        }
    }
    jobs
}

fn picture_path(root: &Path, job: &Job) -> PathBuf {
    let kind = job.defect.unwrap_or("good");
    root.join(job.category).join(job.part).join(kind).join(format!("{:03}.png", job.number))
}

fn mask_path(root: &Path, job: &Job) -> Option<PathBuf> {
    let folder = root.join(job.category).join("ground_truth").join(job.defect?);
    Some(folder.join(format!("{:03}_mask.png", job.number)))
}

fn draw(job: &Job, spec: &DemoSpec) -> Picture {
    let mut rng = ChaCha8Rng::seed_from_u64(spec.seed);
    rng.set_stream(job.stream * 2 + u64::from(job.category == "bolt"));
    match job.category {
        "bolt" => bolt::draw(spec.size, job.defect, &mut rng),
        _ => weave::draw(spec.size, job.defect, &mut rng),
    }
}

fn save(path: &Path, bytes: &[u8], size: u32, colour: ExtendedColorType) -> Result<()> {
    let mut file = Vec::new();
    PngEncoder::new_with_quality(&mut file, CompressionType::Fast, FilterType::Adaptive)
        .write_image(bytes, size, size, colour)
        .map_err(|e| DataError::Io { path: path.to_path_buf(), source: std::io::Error::other(e) })?;
    fs::write(path, file).map_err(DataError::io(path))
}
