//! Everything a user can hand in wrongly: each ends in a clear message and a non-zero exit, or goes on over a folder and
//! says what was skipped; nothing panics and no half-written file stays.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use image::{ImageFormat, Rgb, RgbImage};

/// Arguments that make training take a moment: a small network on small pictures.
const SMALL: &[&str] =
    &["--model", "padim", "--backbone", "mobilenetv2_100", "--layers", "blocks.1", "--image-size", "64", "--quiet"];

fn blemish(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_blemish"))
        .args(args)
        .current_dir(folder)
        .env("XDG_CACHE_HOME", folder.join("cache"))
        .env("HOME", folder)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Asserts failure with a message that holds every word of `words`, without a panic.
fn refused(what: &str, output: &Output, words: &[&str]) {
    let said = text(output);
    assert!(!output.status.success(), "{what}: should fail, said: {said}");
    assert!(output.status.code().is_some_and(|c| (1..=4).contains(&c)), "{what}: {:?}, said: {said}", output.status);
    assert!(!said.contains("panicked"), "{what}: {said}");
    for word in words {
        assert!(said.to_lowercase().contains(&word.to_lowercase()), "{what}: '{word}' is not in: {said}");
    }
}

fn picture(seed: u32, w: u32, h: u32) -> RgbImage {
    RgbImage::from_fn(w, h, |x, y| {
        let v = (x * 7 + y * 13 + seed * 29) % 64 + 90;
        Rgb([v as u8, (v + x % 16) as u8, (v + y % 16) as u8])
    })
}

fn write(path: &Path, seed: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    picture(seed, 64, 64).save_with_format(path, ImageFormat::Png).unwrap();
}

/// A data set of 12 good pictures to learn from and a few to test.
fn data_set(root: &Path) {
    for i in 0..12 {
        write(&root.join(format!("train/good/{i:03}.png")), i);
    }
    for i in 0..3 {
        write(&root.join(format!("test/good/{i:03}.png")), 100 + i);
        let bad = root.join(format!("test/hole/{i:03}.png"));
        fs::create_dir_all(bad.parent().unwrap()).unwrap();
        let mut image = picture(200 + i, 64, 64);
        let mut mask = image::GrayImage::new(64, 64);
        for (x, y) in (20..34).flat_map(|x| (20..34).map(move |y| (x, y))) {
            image.put_pixel(x, y, Rgb([0, 0, 0]));
            mask.put_pixel(x, y, image::Luma([255]));
        }
        image.save(&bad).unwrap();
        let at = root.join(format!("ground_truth/hole/{i:03}_mask.png"));
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        mask.save(at).unwrap();
    }
}

/// A trained model, made once.
fn model() -> &'static PathBuf {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap().keep();
        data_set(&folder.join("parts"));
        let output = blemish(&folder, &[&["train", "--data", "parts", "--output", "out"], SMALL].concat());
        assert!(output.status.success(), "{}", text(&output));
        find(&folder.join("out"), "model.safetensors").expect("a model file")
    })
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(folder).ok()?.flatten().map(|e| e.path()).collect();
    entries.sort();
    entries
        .iter()
        .find(|p| p.file_name().is_some_and(|n| n == name))
        .cloned()
        .or_else(|| entries.iter().filter(|p| p.is_dir() && !p.is_symlink()).find_map(|p| find(p, name)))
}

/// No file that looks half-written anywhere below.
fn no_leftovers(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(!name.ends_with(".part") && !name.contains(".blemish-"), "left behind: {}", path.display());
        if path.is_dir() && !path.is_symlink() {
            no_leftovers(&path);
        }
    }
}

#[test]
fn unreadable_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let model = model().to_str().unwrap();
    write(&f.join("fine.png"), 1);
    let png = fs::read(f.join("fine.png")).unwrap();
    let mut jpeg = std::io::Cursor::new(Vec::new());
    picture(1, 64, 64).write_to(&mut jpeg, ImageFormat::Jpeg).unwrap();
    let jpeg = jpeg.into_inner();
    // A header that promises 60,000 x 60,000 pixels; the checksum of the header chunk is right.
    let mut bomb = png.clone();
    bomb[16..20].copy_from_slice(&60_000u32.to_be_bytes());
    bomb[20..24].copy_from_slice(&60_000u32.to_be_bytes());
    let crc = crc32(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&crc.to_be_bytes());
    let mut zero = png.clone();
    zero[16..20].copy_from_slice(&0u32.to_be_bytes());
    let crc = crc32(&zero[12..29]);
    zero[29..33].copy_from_slice(&crc.to_be_bytes());
    let mut flipped = png.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("truncated.png", png[..png.len() / 2].to_vec()),
        ("headless.png", png[..20].to_vec()),
        ("damaged.png", flipped),
        ("truncated.jpg", jpeg[..jpeg.len() / 3].to_vec()),
        ("start_only.jpg", jpeg[..4].to_vec()),
        ("bomb.png", bomb),
        ("zero_width.png", zero),
        ("text.png", b"this is a letter, not a picture\n".to_vec()),
        ("empty.png", Vec::new()),
        ("noise.bmp", (0..500u32).map(|i| (i * 7919 % 251) as u8).collect()),
        ("tiff_only_magic.tiff", b"II*\0".to_vec()),
        ("webp_lie.webp", b"RIFF\xff\xff\xff\x7fWEBPVP8 ".to_vec()),
    ];
    for (name, bytes) in &cases {
        fs::write(f.join(name), bytes).unwrap();
        let output = blemish(f, &["predict", "--model-file", model, name]);
        refused(name, &output, &[name]);
        assert_eq!(output.status.code(), Some(3), "{name}: {}", text(&output));
    }
    // Over a folder it goes on, says what was skipped, and still answers for the good one.
    let output = blemish(f, &["predict", "--model-file", model, "."]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("fine.png") && said.contains("skipped"), "{said}");
    for (name, _) in &cases {
        assert!(said.contains(name), "{name} is not named: {said}");
    }
    no_leftovers(f);
}

#[test]
fn arguments_that_name_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let model = model().to_str().unwrap();
    fs::create_dir(f.join("empty")).unwrap();
    let train = |extra: &[&str]| blemish(f, &[&["train"], SMALL, extra].concat());
    refused("no such folder", &train(&["--data", "nowhere"]), &["nowhere"]);
    refused("empty folder", &train(&["--data", "empty"]), &["empty", "no images"]);
    refused(
        "a file as data",
        &{
            fs::write(f.join("file.txt"), "x").unwrap();
            train(&["--data", "file.txt"])
        },
        &["file.txt"],
    );
    refused("predict nothing", &blemish(f, &["predict", "--model-file", model, "nowhere.png"]), &["nowhere.png"]);
    refused("glob without match", &blemish(f, &["predict", "--model-file", model, "*.nothing"]), &["*.nothing"]);
    refused("empty folder to predict", &blemish(f, &["predict", "--model-file", model, "empty"]), &["empty"]);
    refused(
        "no model file",
        &blemish(f, &["predict", "--model-file", "gone.safetensors", "empty"]),
        &["gone.safetensors"],
    );
    data_set(&f.join("mvtec/screw"));
    let unknown = train(&["--data", "mvtec", "--category", "scrw"]);
    refused("unknown category", &unknown, &["scrw", "screw"]);
    let output = blemish(f, &["train", "--model", "padmi", "--data", "mvtec/screw"]);
    refused("unknown model", &output, &["padmi", "padim"]);
    let output = blemish(f, &["train", "--model", "padim", "--backbone", "resnet81", "--data", "mvtec/screw"]);
    refused("unknown backbone", &output, &["resnet81", "resnet18"]);
    let output = train(&["--data", "mvtec/screw", "--layers", "blocks.99"]);
    refused("unknown layer", &output, &["blocks.99", "blocks.1"]);
    let output = train(&["--data", "mvtec/screw", "--device", "cuda:999"]);
    refused("no such device", &output, &["cuda:999", "not available"]);
    let output = train(&["--data", "mvtec/screw", "--device", "gpu"]);
    refused("no device", &output, &["'gpu'", "auto, cpu, cuda and cuda:N"]);
    if !cfg!(feature = "cuda") {
        for command in [
            &["train", "--data", "mvtec/screw", "--device", "cuda"][..],
            &["test", "--model-file", "none.blemish", "--data", "mvtec/screw", "--device", "cuda"],
            &["predict", "--model-file", "none.blemish", "mvtec", "--device", "cuda"],
            &["bench", "--model-file", "none.blemish", "--device", "cuda"],
        ] {
            let output = blemish(f, command);
            refused("a GPU without GPU code", &output, &["feature `cuda`", "--features cuda", "--device cpu"]);
        }
    }
    let output = train(&["--data", "mvtec/screw", "--threads", "1000000"]);
    refused("a million threads", &output, &["threads", "1024"]);
    let output = blemish(f, &["train", "--data", "mvtec/screw", "--image-size", "0"]);
    refused("size zero", &output, &["resize", "0 pixels"]);
    no_leftovers(f);
}

#[test]
fn training_sets_that_cannot_be_learnt_from() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let train = |extra: &[&str]| blemish(f, &[&["train"], SMALL, extra].concat());
    write(&f.join("one/train/good/0.png"), 1);
    refused("one picture", &train(&["--data", "one"]), &["1"]);
    data_set(&f.join("broken"));
    fs::write(f.join("broken/train/good/004.png"), "not a picture").unwrap();
    fs::write(f.join("broken/train/good/005.png"), "").unwrap();
    let output = train(&["--data", "broken", "--output", "out"]);
    refused("unreadable training pictures", &output, &["004.png", "005.png"]);
    assert!(find(&f.join("out"), "model.safetensors").is_none());
    let output = train(&["--data", "broken", "--output", "out", "--skip-unreadable"]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("004.png"), "{}", text(&output));
    // Pictures of differing sizes are stretched to one size: fine.
    data_set(&f.join("sizes"));
    picture(3, 80, 50).save(f.join("sizes/train/good/003.png")).unwrap();
    let output = train(&["--data", "sizes", "--output", "sizes_out"]);
    assert!(output.status.success(), "{}", text(&output));
    no_leftovers(f);
}

#[test]
fn masks_that_do_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    data_set(&f.join("parts"));
    image::GrayImage::new(10, 10).save(f.join("parts/ground_truth/hole/001_mask.png")).unwrap();
    let model = model().to_str().unwrap();
    let output = blemish(f, &["test", "--model-file", model, "--data", "parts", "--output", "out", "--quiet"]);
    refused("mask of another size", &output, &["001"]);
    fs::write(f.join("parts/ground_truth/hole/001_mask.png"), "no picture").unwrap();
    let output = blemish(f, &["test", "--model-file", model, "--data", "parts", "--output", "out", "--quiet"]);
    refused("unreadable mask", &output, &["001"]);
    no_leftovers(f);
}

#[test]
fn damaged_model_files() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    write(&f.join("fine.png"), 1);
    let whole = fs::read(model()).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let text_header = String::from_utf8_lossy(&whole[8..header]).into_owned();
    let with_header = |new: String| {
        assert!(new != text_header, "the pattern is in the header");
        let padded = format!("{new:<width$}", width = new.len().next_multiple_of(8));
        let mut bytes = (padded.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(padded.as_bytes());
        bytes.extend_from_slice(&whole[header..]);
        bytes
    };
    let layout: serde_json::Value = serde_json::from_str(&text_header).unwrap();
    let with_nan = |tensor: &str| {
        let place = |i: usize| header + layout[tensor]["data_offsets"][i].as_u64().unwrap() as usize;
        let mut bytes = whole.clone();
        bytes[place(0)..place(1)].chunks_exact_mut(4).for_each(|v| v.copy_from_slice(&f32::NAN.to_le_bytes()));
        bytes
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("truncated", whole[..whole.len() / 2].to_vec()),
        ("header_only", whole[..header].to_vec()),
        ("seven_bytes", whole[..7].to_vec()),
        ("empty", Vec::new()),
        ("text", b"not a model".to_vec()),
        ("huge_header", [u64::MAX.to_le_bytes().as_slice(), &whole[8..]].concat()),
        ("future", with_header(text_header.replacen("\\\"format\\\":1", "\\\"format\\\":9", 1))),
        (
            "another_kind",
            with_header(text_header.replacen("\\\"kind\\\":\\\"padim\\\"", "\\\"kind\\\":\\\"padam\\\"", 1)),
        ),
        ("another_backbone", with_header(text_header.replacen("mobilenetv2_100", "resnet18", 9))),
        ("nan_means", with_nan("padim.mean.0")),
        ("nan_weights", with_nan("backbone.conv_stem.weight")),
        ("nan_self_test", with_nan("self_test.scores")),
    ];
    for (name, bytes) in &cases {
        fs::write(f.join(name), bytes).unwrap();
        for command in [&["predict", "--model-file", name, "fine.png"][..], &["inspect", name]] {
            let output = blemish(f, command);
            let said = text(&output);
            assert!(!said.contains("panicked"), "{name}: {said}");
            if command[0] == "predict" {
                refused(name, &output, &[name]);
            }
        }
    }
    // A weight file is no model, and says so.
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1], &[0; 4]).unwrap();
    fs::write(f.join("weights"), safetensors::serialize([("conv1.weight", view)], None).unwrap()).unwrap();
    refused("weights as a model", &blemish(f, &["predict", "--model-file", "weights", "fine.png"]), &["weights"]);
}

#[test]
fn weights_that_do_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    data_set(&f.join("parts"));
    let train = |weights: &str| blemish(f, &[&["train", "--data", "parts", "--weights", weights], SMALL].concat());
    refused("no such file", &train("gone.safetensors"), &["gone.safetensors"]);
    fs::write(f.join("text.pth"), "not weights").unwrap();
    refused("text as weights", &train("text.pth"), &["text.pth"]);
    let bytes = [0u8; 4];
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1], &bytes).unwrap();
    fs::write(f.join("other.safetensors"), safetensors::serialize([("conv1.weight", view)], None).unwrap()).unwrap();
    refused("weights of another network", &train("other.safetensors"), &["conv_stem"]);
}

#[test]
fn configurations_with_slips() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    data_set(&f.join("parts"));
    let train = |config: &str| blemish(f, &["train", "--data", "parts", "--config", config, "--quiet"]);
    fs::write(f.join("key.toml"), "model = \"padim\"\n[padim]\nbackbon = \"resnet18\"\n").unwrap();
    refused("unknown key", &train("key.toml"), &["backbon", "backbone"]);
    fs::write(f.join("type.yaml"), "model: padim\npadim:\n  epsilon: lots\n").unwrap();
    refused("wrong type", &train("type.yaml"), &["epsilon"]);
    fs::write(f.join("syntax.toml"), "model = padim\n").unwrap();
    refused("syntax", &train("syntax.toml"), &["syntax.toml"]);
    refused("no such config", &train("gone.toml"), &["gone.toml"]);
    fs::write(f.join("ending.ini"), "x=1").unwrap();
    refused("unknown format", &train("ending.ini"), &["ending.ini"]);
}

#[test]
#[cfg(unix)]
fn places_that_cannot_be_written() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    data_set(&f.join("parts"));
    fs::write(f.join("taken"), "a file where the results should go").unwrap();
    let output = blemish(f, &[&["train", "--data", "parts", "--output", "taken"], SMALL].concat());
    refused("a file as output", &output, &["taken"]);
    assert_eq!(fs::read_to_string(f.join("taken")).unwrap(), "a file where the results should go");
    // Root may write anywhere; only an ordinary user meets this one.
    fs::create_dir(f.join("locked")).unwrap();
    fs::set_permissions(f.join("locked"), fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(f.join("locked/probe"), "").is_err() {
        let output = blemish(f, &[&["train", "--data", "parts", "--output", "locked"], SMALL].concat());
        refused("no permission", &output, &["locked"]);
    }
    // A device that is always full.
    if Path::new("/dev/full").exists() {
        let output = Command::new("sh")
            .args(["-c", &format!("exec '{}' data list > /dev/full", env!("CARGO_BIN_EXE_blemish"))])
            .output()
            .unwrap();
        assert!(!text(&output).contains("panicked"), "{}", text(&output));
        assert!(!output.status.success());
    }
    // A reader that leaves early is no panic.
    let piped = format!("'{}' data list | head -n 1", env!("CARGO_BIN_EXE_blemish"));
    let output = Command::new("sh").args(["-c", &piped]).output().unwrap();
    assert!(!text(&output).contains("panicked"), "{}", text(&output));
}

/// The checksum of PNG chunks.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 })
    })
}
