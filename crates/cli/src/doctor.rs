//! `blemish doctor` and `blemish inspect`.

use blemish::backbone::catalogue;
use blemish::core::ModelFile;
use blemish::tensor::Device;
use blemish::{Error, registry};
use serde_json::json;

use crate::args::{Args, Inspect};
use crate::{say, train};

pub(crate) fn run(args: &Args) -> anyhow::Result<u8> {
    let config = train::base(args)?;
    let store = train::store(args);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let weights: Vec<_> = catalogue::NETS.iter().map(|n| (n.id, store.find(n.id))).collect();
    let device = Device::parse(&config.device).map_err(|e| e.to_string());
    let gpus = Device::gpus();
    let models: Vec<&str> = registry::DETECTORS.iter().map(|e| e.kind).collect();
    if args.json {
        let weights: serde_json::Map<_, _> = weights.iter().map(|(id, p)| ((*id).to_owned(), json!(p))).collect();
        let value = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "threads": threads,
            "vector_instructions": vector(),
            "device": device.as_ref().map(ToString::to_string).ok(),
            "gpus": gpus.as_deref().unwrap_or_default(),
            "no_gpu": gpus.as_ref().err().map(ToString::to_string),
            "blas": blemish::linalg::library(),
            "cache": store.folder(),
            "weights": weights,
            "models": models,
        });
        say::out(&value.to_string())?;
        return Ok(say::OK);
    }
    let mut text = format!(
        " blemish   {}\n threads   {threads}\n vectors   {}\n blas      {}\n",
        env!("CARGO_PKG_VERSION"),
        vector(),
        blemish::linalg::library()
    );
    text += &match gpus {
        Ok(list) => list.iter().enumerate().map(|(i, gpu)| format!(" gpu       cuda:{i}: {gpu}\n")).collect(),
        Err(why) => format!(" gpu       none: {why}\n           {}\n", why.advice()),
    };
    text += &match device {
        Ok(device) if device.is_cpu() => format!(" device    {device} (chosen by '{}')\n", config.device),
        Ok(device) => format!(
            " device    {device} (chosen by '{}') will be used for networks (f32 as it is, bf16 as fp16 with f32 sums),\n           \
             search, coreset, distances and flows; the CPU for int8 networks and what does not fit its memory\n",
            config.device
        ),
        Err(why) => format!(" device    {}\n", why.replace('\n', "\n           ")),
    };
    text += &format!(" models    {}\n cache     {}\n", models.join(", "), store.folder().display());
    for (id, path) in weights {
        let state = path.map_or_else(|| format!("none; `blemish weights pull {id}`"), |p| p.display().to_string());
        text += &format!(" weights   {id:<22} {state}\n");
    }
    say::out(&text)?;
    Ok(say::OK)
}

/// The widest vector instructions the processor has among those used.
fn vector() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            return "AVX-512";
        }
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            return "AVX2 with FMA";
        }
    }
    "what the compiler makes of portable code"
}

pub(crate) fn inspect(args: &Args, command: &Inspect) -> anyhow::Result<u8> {
    let file = ModelFile::open(&command.file).map_err(Error::from)?;
    let tensors: Vec<_> =
        file.tensors().map(|(name, t)| (name, t.dtype().to_string(), t.shape().to_vec(), t.bytes().len())).collect();
    if args.json {
        let list: Vec<_> =
            tensors.iter().map(|(n, d, s, b)| json!({"name": n, "dtype": d, "shape": s, "bytes": b})).collect();
        say::out(&json!({"meta": file.meta(), "tensors": list}).to_string())?;
        return Ok(say::OK);
    }
    let mut text = format!(" {}\n", command.file.display());
    for (key, value) in file.meta() {
        text += &format!(" {key:<12} {value}\n");
    }
    let (backbone, own): (Vec<_>, Vec<_>) = tensors.iter().partition(|t| t.0.starts_with("backbone."));
    for (name, dtype, shape, bytes) in own {
        text += &format!(" {name:<28} {dtype:<4} {shape:?} ({})\n", say::size(*bytes as u64));
    }
    let bytes: usize = backbone.iter().map(|t| t.3).sum();
    text += &format!(" {} tensors of the backbone ({})", backbone.len(), say::size(bytes as u64));
    say::out(&text)?;
    Ok(say::OK)
}
