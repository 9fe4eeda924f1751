//! Wide ResNet-50-2 (Zagoruyko and Komodakis 2016): ResNet-50 with bottlenecks twice as wide.

use super::Graph;
use super::resnet::{self, Block};

/// The network.
pub fn graph() -> Graph {
    resnet::graph(Block::Bottleneck { width: 2 }, [3, 4, 6, 3])
}
