use std::path::PathBuf;

/// Why a data set cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// There is nothing to learn from, or nothing at all.
    #[error("{place} holds no images{what}.\nLooked for {looked}.\n{advice}")]
    NoImages {
        /// Where.
        place: String,
        /// Of what kind, beginning with a space; or nothing.
        what: &'static str,
        /// The places looked at.
        looked: String,
        /// What to do.
        advice: String,
    },
    /// A category that is not there.
    #[error("there is no category '{name}' in {root}.{hint}\nPresent: {present}.")]
    UnknownCategory {
        /// As asked for.
        name: String,
        /// Where.
        root: PathBuf,
        /// " Did you mean ...?", or nothing.
        hint: String,
        /// The categories there, or "none".
        present: String,
    },
    /// Several categories and none chosen.
    #[error("{root} holds {} categories; say which with `category`.\nPresent: {}.", present.len(), present.join(", "))]
    WhichCategory {
        /// Where.
        root: PathBuf,
        /// The categories there.
        present: Vec<String>,
    },
    /// A folder or file that is not there.
    #[error("there is no {path}; {what}")]
    Missing {
        /// The path.
        path: PathBuf,
        /// What it was wanted for, and what to do.
        what: String,
    },
    /// The same picture twice where it would falsify results.
    #[error("{path} is in both {first} and {second}; results on a picture that was learned from mean nothing")]
    Leak {
        /// The picture.
        path: PathBuf,
        /// One part.
        first: &'static str,
        /// Another part.
        second: &'static str,
    },
    /// A manifest that cannot be understood.
    #[error("{path}, line {line}: {why}")]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Counted from one.
        line: u64,
        /// What is wrong.
        why: String,
    },
    /// A pattern that cannot be understood.
    #[error("'{pattern}' is not a usable pattern: {why}")]
    Pattern {
        /// As given.
        pattern: String,
        /// What is wrong.
        why: String,
    },
    /// A setting outside its range.
    #[error("{name}: {why}")]
    Setting {
        /// The field, as in the configuration.
        name: &'static str,
        /// Its value and its range.
        why: String,
    },
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The answer.
        source: std::io::Error,
    },
    /// A picture cannot be used, or the user asked to stop.
    #[error(transparent)]
    Core(#[from] blemish_core::CoreError),
}

impl DataError {
    /// For `map_err`: an answer of the operating system about `path`.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> DataError {
        let path = path.into();
        move |source| DataError::Io { path, source }
    }
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, DataError>;
