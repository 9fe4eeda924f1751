//! ResNet-50 (He et al. 2016).

use super::Graph;
use super::resnet::{self, Block};

/// The network.
pub fn graph() -> Graph {
    resnet::graph(Block::Bottleneck { width: 1 }, [3, 4, 6, 3])
}
