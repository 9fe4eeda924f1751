use serde::{Deserialize, Serialize};

/// Whose reading of the paper to follow where published implementations differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// anomalib 2.7.
    #[default]
    Anomalib,
    /// The paper or its authors' code.
    Paper,
}
