//! ResNet-18 (He et al. 2016).

use super::Graph;
use super::resnet::{self, Block};

/// The network.
pub fn graph() -> Graph {
    resnet::graph(Block::Basic, [2, 2, 2, 2])
}
