//! The command line. Flags have the names of the settings in a configuration file, and win over it.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Learns from pictures of good parts, finds and shows defects in new ones.
///
/// Exit codes: 0 done; 1 failed; 2 wrong usage; 3 some pictures could not be read; 4 a defect was found
/// (with --fail-on-defect); 130 interrupted.
#[derive(Parser, Debug)]
#[command(name = "blemish", version, max_term_width = 100)]
pub(crate) struct Args {
    /// No progress and no notes; errors and results only
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Results as JSON on stdout
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Threads; one a core if not given. Results do not depend on it
    #[arg(long, global = true, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// The only source of randomness
    #[arg(long, global = true)]
    pub(crate) seed: Option<u64>,
    /// Where to compute: auto, cpu, cuda (the first GPU) or cuda:N. auto takes a GPU if there is one
    #[arg(long, global = true)]
    pub(crate) device: Option<String>,
    /// latency: one picture at a time on all threads; throughput: stages overlap. Scores are the same
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) pipeline: Option<String>,
    /// Settings from a .toml or .yaml file; flags win
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Folder of downloaded and imported weights
    #[arg(long, global = true, value_name = "DIR", env = "BLEMISH_CACHE")]
    pub(crate) cache: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Learn from good pictures and write a model file
    Train(Train),
    /// Measure a model on labelled pictures
    Test(Test),
    /// Say of each picture whether it shows a defect
    Predict(Predict),
    /// Measure how fast a model is
    Bench(Bench),
    /// Data sets: list, check, fetch, demo
    Data(Data),
    /// Backbone weights: list, pull, import, check
    Weights(Weights),
    /// Show what is in a model file
    Inspect(Inspect),
    /// Print every setting in force
    Config(Train),
    /// What this machine has and what will be used
    Doctor,
    /// Completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Which pictures.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct DataArgs {
    /// A category folder, a root with categories, or a folder of good pictures
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Category below the root
    #[arg(long)]
    pub(crate) category: Option<String>,
    /// Folder, file or pattern of good pictures; may be given more than once
    #[arg(long, value_name = "PATH")]
    pub(crate) good: Vec<String>,
    /// Folder, file or pattern of bad pictures
    #[arg(long, value_name = "PATH")]
    pub(crate) bad: Vec<String>,
    /// Folder of masks
    #[arg(long, value_name = "DIR")]
    pub(crate) masks: Option<PathBuf>,
    /// CSV or JSONL file with path, label, mask, split
    #[arg(long, value_name = "FILE")]
    pub(crate) manifest: Option<PathBuf>,
    /// Share of the good training pictures held out for the thresholds
    #[arg(long, value_name = "SHARE")]
    pub(crate) val_ratio: Option<f64>,
    /// leak_free, or paper: all good pictures train and the test set sets the thresholds (flatters)
    #[arg(long, value_name = "NAME")]
    pub(crate) protocol: Option<String>,
}

#[derive(clap::Args, Debug, Default)]
pub(crate) struct Train {
    /// The detector: padim, patchcore, cflow, fastflow
    #[arg(long)]
    pub(crate) model: Option<String>,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// The network, by timm's name
    #[arg(long)]
    pub(crate) backbone: Option<String>,
    /// Its layers, with commas
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub(crate) layers: Vec<String>,
    /// Its weights: safetensors or .pth
    #[arg(long, value_name = "FILE")]
    pub(crate) weights: Option<PathBuf>,
    /// What the network computes in: f32, bf16 (needs AVX-512 with BF16) or int8
    #[arg(long, value_name = "NAME")]
    pub(crate) precision: Option<String>,
    /// What cflow trains its flows in: bf16 (where processor or GPU has it; all sums in f32) or f32
    #[arg(long, value_name = "NAME")]
    pub(crate) flow_precision: Option<String>,
    /// Stretch pictures to this size
    #[arg(long, value_name = "PIXELS")]
    pub(crate) image_size: Option<usize>,
    /// Then cut this much out of the centre
    #[arg(long, value_name = "PIXELS")]
    pub(crate) center_crop: Option<usize>,
    /// Whose reading of the paper: anomalib or paper
    #[arg(long)]
    pub(crate) mode: Option<String>,
    /// PatchCore: share of patches kept
    #[arg(long, value_name = "SHARE")]
    pub(crate) coreset_ratio: Option<f64>,
    /// PatchCore: how the patches kept are stored: f32, f16 or int8
    #[arg(long, value_name = "NAME")]
    pub(crate) bank: Option<String>,
    /// PaDiM: channels kept
    #[arg(long, value_name = "N")]
    pub(crate) n_features: Option<usize>,
    /// CFlow and FastFlow: most passes over the pictures
    #[arg(long, value_name = "N")]
    pub(crate) epochs: Option<usize>,
    /// CFlow and FastFlow: go on with the newest training that was interrupted, or with that of the run's folder given; the
    /// result is the same as without the interruption
    #[arg(long, value_name = "RUN")]
    pub(crate) resume: Option<Option<PathBuf>>,
    /// CFlow and FastFlow: keep the epoch that does best on the test pictures, as much published work does (flatters)
    #[arg(long)]
    pub(crate) best_on_test: bool,
    /// Any other setting, as in a configuration file: --set padim.epsilon=0.02
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Share of good parts that may be rejected
    #[arg(long, value_name = "SHARE")]
    pub(crate) false_reject_rate: Option<f64>,
    /// Go on without training pictures that cannot be read
    #[arg(long)]
    pub(crate) skip_unreadable: bool,
    /// Folder below which results are written
    #[arg(long, short, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Test {
    /// The model
    #[arg(long, value_name = "FILE")]
    pub(crate) model_file: PathBuf,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Smallest region reported, in pixels of the network input
    #[arg(long, value_name = "PIXELS")]
    pub(crate) min_region_area: Option<usize>,
    /// Write no pictures
    #[arg(long)]
    pub(crate) no_pictures: bool,
    /// Folder below which results are written; beside the model if that is a run's folder
    #[arg(long, short, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Predict {
    /// Pictures: files, folders, patterns, or - for a list of files on stdin, one a line
    #[arg(value_name = "PICTURES")]
    pub(crate) pictures: Vec<String>,
    /// The model
    #[arg(long, value_name = "FILE")]
    pub(crate) model_file: PathBuf,
    /// As PICTURES
    #[arg(long, value_name = "PATH")]
    pub(crate) image_path: Vec<String>,
    /// Call it a defect from this raw score on, instead of the model's threshold
    #[arg(long, value_name = "RAW")]
    pub(crate) threshold: Option<f64>,
    /// Smallest region reported, in pixels of the network input
    #[arg(long, value_name = "PIXELS")]
    pub(crate) min_region_area: Option<usize>,
    /// Write a picture for each, and predictions.csv and .jsonl, into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) save: Option<PathBuf>,
    /// Exit with 4 if there is a defect
    #[arg(long)]
    pub(crate) fail_on_defect: bool,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Bench {
    /// Pictures: files, folders, patterns; the model's own probe pictures if none are given
    #[arg(value_name = "PICTURES")]
    pub(crate) pictures: Vec<String>,
    /// The model
    #[arg(long, value_name = "FILE", required_unless_present = "precision")]
    pub(crate) model_file: Option<PathBuf>,
    /// Pictures timed one by one
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub(crate) count: usize,
    /// Train and test in f32, bf16 and int8 on a data set, given as for train, and compare
    #[arg(long, conflicts_with_all = ["model_file", "pictures"])]
    pub(crate) precision: bool,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// With --precision, the detector
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// The network, by timm's name
    #[arg(long)]
    pub(crate) backbone: Option<String>,
    /// Its layers, with commas
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub(crate) layers: Vec<String>,
    /// Its weights: safetensors or .pth
    #[arg(long, value_name = "FILE")]
    pub(crate) weights: Option<PathBuf>,
    /// Any other setting, as for train
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Data {
    #[command(subcommand)]
    pub(crate) what: DataCommand,
}

#[derive(Subcommand, Debug)]
pub(crate) enum DataCommand {
    /// The categories below a root
    List {
        /// The root
        #[arg(default_value = blemish::datasets::mvtec::DEFAULT_ROOT)]
        root: PathBuf,
    },
    /// Check a category, or all below a root: counts, masks, headers
    Check {
        /// The root or a category
        #[arg(default_value = blemish::datasets::mvtec::DEFAULT_ROOT)]
        root: PathBuf,
    },
    /// How to get MVTec AD, and its licence
    Fetch,
    /// Draw the demo set
    Demo {
        /// Where
        #[arg(long, default_value = "datasets/demo", value_name = "DIR")]
        out: PathBuf,
        /// Height and width in pixels
        #[arg(long, default_value_t = 256)]
        size: usize,
    },
}

#[derive(clap::Args, Debug)]
pub(crate) struct Weights {
    #[command(subcommand)]
    pub(crate) what: WeightsCommand,
}

#[derive(Subcommand, Debug)]
pub(crate) enum WeightsCommand {
    /// Published files, and which are here
    List,
    /// Download a published file
    Pull {
        /// A file's or a network's name
        name: String,
    },
    /// Copy a file into the cache
    Import {
        /// safetensors or .pth
        file: PathBuf,
    },
    /// Check a file: published sum, names and shapes
    Check {
        /// A file; all in the cache if not given
        file: Option<PathBuf>,
    },
}

#[derive(clap::Args, Debug)]
pub(crate) struct Inspect {
    /// The model
    #[arg(value_name = "MODEL")]
    pub(crate) file: PathBuf,
}
