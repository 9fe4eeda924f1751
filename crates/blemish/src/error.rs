use std::path::PathBuf;

/// What can go wrong in a run. The text says what is wrong, what was found and what to do, in that order.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A picture, a model file, a detector.
    #[error(transparent)]
    Core(#[from] blemish_core::CoreError),
    /// The data set.
    #[error(transparent)]
    Data(#[from] blemish_datasets::DataError),
    /// A network or its weights.
    #[error(transparent)]
    Backbone(#[from] blemish_backbone::BackboneError),
    /// A metric that cannot be computed.
    #[error(transparent)]
    Metric(#[from] blemish_metrics::MetricError),
    /// A name that is not in a list.
    #[error("there is no {what} '{got}'.{hint}\n{what}s: {known}")]
    Unknown {
        /// What kind of name.
        what: &'static str,
        /// As given.
        got: String,
        /// " Did you mean ...?", or nothing.
        hint: String,
        /// All there are.
        known: String,
    },
    /// A configuration file that cannot be understood.
    #[error("{path}: {why}")]
    ConfigFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A setting that does not exist or does not fit.
    #[error("setting '{key}': {why}")]
    Setting {
        /// Its name, with dots between tables.
        key: String,
        /// What is wrong, and what is possible.
        why: String,
    },
    /// Pictures that cannot be read where all are needed.
    #[error("{} of {total} training pictures cannot be read:\n{}\nRepair or remove them, or go on without them: --skip-unreadable", list.len(), list.join("\n"))]
    Unreadable {
        /// One line each.
        list: Vec<String>,
        /// Pictures in all.
        total: usize,
    },
    /// A download that failed or gave something else than published.
    #[error("{url}: {why}")]
    Download {
        /// What was fetched.
        url: String,
        /// What went wrong.
        why: String,
    },
    /// A run's folder in which another training is at work.
    #[error("{}: another training is at work in this folder; wait for it, or start a run of its own", folder.display())]
    Busy {
        /// The folder.
        folder: PathBuf,
    },
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The answer.
        source: std::io::Error,
    },
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// For `map_err`: an answer of the operating system about `path`.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { path, source }
    }

    /// A name that is not among `known`, with the nearest one as a suggestion.
    pub fn unknown(what: &'static str, got: &str, known: &[&str]) -> Error {
        Error::Unknown { what, got: got.to_owned(), hint: suggestion(got, known), known: known.join(", ") }
    }

    /// Whether the user asked to stop.
    pub fn is_interruption(&self) -> bool {
        matches!(
            self,
            Error::Core(blemish_core::CoreError::Interrupted)
                | Error::Data(blemish_datasets::DataError::Core(blemish_core::CoreError::Interrupted))
        )
    }
}

/// " Did you mean '...'?" if one of `known` is near.
pub(crate) fn suggestion(got: &str, known: &[&str]) -> String {
    let near = known.iter().map(|k| (strsim::damerau_levenshtein(got, k), k)).min();
    match near {
        Some((distance, name)) if distance <= (name.len() / 3).max(1) => format!(" Did you mean '{name}'?"),
        _ => String::new(),
    }
}
