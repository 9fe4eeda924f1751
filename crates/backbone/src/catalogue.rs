//! The networks known here and their official weight files.

use crate::spec::{self, Graph};
use crate::{BackboneError, Result};

/// One network.
#[derive(Clone, Copy, Debug)]
pub struct Net {
    /// timm's name.
    pub id: &'static str,
    /// The layers that can be asked for, from shallow to deep.
    pub layers: &'static [Layer],
    /// The layers at strides 4, 8 and 16, which most detectors start from.
    pub default_layers: &'static [&'static str],
    /// Mean of the red, green and blue channel (of values in 0..1) that the official weights expect removed.
    pub mean: [f32; 3],
    /// Standard deviation they expect divided by.
    pub std: [f32; 3],
    /// Describes the network as data.
    pub graph: fn() -> Graph,
}

/// One layer of a [`Net`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// timm's name.
    pub name: &'static str,
    /// Channels of its map.
    pub channels: usize,
    /// Pixels of the input that one step in its map spans.
    pub stride: usize,
}

/// One published weight file.
#[derive(Clone, Copy, Debug)]
pub struct File {
    /// File name.
    pub name: &'static str,
    /// The [`Net::id`] it is for.
    pub net: &'static str,
    /// Where it is published.
    pub url: &'static str,
    /// The first 8 hexadecimal digits of its SHA-256, published as part of its name.
    pub sha256_prefix: &'static str,
    /// Size in bytes as published, exact to about one kilobyte.
    pub bytes: u64,
    /// Data it was trained on and who publishes it.
    pub about: &'static str,
}

impl Net {
    /// The network called `id`.
    ///
    /// # Errors
    /// [`BackboneError::UnknownNet`] if there is none.
    pub fn find(id: &str) -> Result<&'static Net> {
        NETS.iter().find(|net| net.id == id).ok_or_else(|| BackboneError::UnknownNet {
            got: id.to_owned(),
            choices: NETS.iter().map(|net| net.id).collect(),
        })
    }

    /// The published weight files for it.
    pub fn files(&self) -> impl Iterator<Item = &'static File> {
        let id = self.id;
        FILES.iter().filter(move |file| file.net == id)
    }
}

const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

const fn layer(name: &'static str, channels: usize, stride: usize) -> Layer {
    Layer { name, channels, stride }
}

const fn net(
    id: &'static str,
    layers: &'static [Layer],
    default_layers: &'static [&'static str],
    graph: fn() -> Graph,
) -> Net {
    Net { id, layers, default_layers, mean: IMAGENET_MEAN, std: IMAGENET_STD, graph }
}

const STAGES: &[&str] = &["layer1", "layer2", "layer3"];
const BLOCKS: &[&str] = &["blocks.1", "blocks.2", "blocks.4"];

const BOTTLENECK_LAYERS: &[Layer] = &[
    layer("act1", 64, 2),
    layer("layer1", 256, 4),
    layer("layer2", 512, 8),
    layer("layer3", 1024, 16),
    layer("layer4", 2048, 32),
];

/// Every network.
pub const NETS: &[Net] = &[
    net(
        "resnet18",
        &[
            layer("act1", 64, 2),
            layer("layer1", 64, 4),
            layer("layer2", 128, 8),
            layer("layer3", 256, 16),
            layer("layer4", 512, 32),
        ],
        STAGES,
        spec::resnet18::graph,
    ),
    net("resnet50", BOTTLENECK_LAYERS, STAGES, spec::resnet50::graph),
    net("wide_resnet50_2", BOTTLENECK_LAYERS, STAGES, spec::wide_resnet50_2::graph),
    net(
        "mobilenetv2_100",
        &[
            layer("blocks.0", 16, 2),
            layer("blocks.1", 24, 4),
            layer("blocks.2", 32, 8),
            layer("blocks.3", 64, 16),
            layer("blocks.4", 96, 16),
            layer("blocks.5", 160, 32),
            layer("blocks.6", 320, 32),
        ],
        BLOCKS,
        spec::mobilenetv2_100::graph,
    ),
    net(
        "mobilenetv3_large_100",
        &[
            layer("blocks.0", 16, 2),
            layer("blocks.1", 24, 4),
            layer("blocks.2", 40, 8),
            layer("blocks.3", 80, 16),
            layer("blocks.4", 112, 16),
            layer("blocks.5", 160, 32),
            layer("blocks.6", 960, 32),
        ],
        BLOCKS,
        spec::mobilenetv3_large_100::graph,
    ),
    net(
        "efficientnet_b5",
        &[
            layer("blocks.0", 24, 2),
            layer("blocks.1", 40, 4),
            layer("blocks.2", 64, 8),
            layer("blocks.3", 128, 16),
            layer("blocks.4", 176, 16),
            layer("blocks.5", 304, 32),
            layer("blocks.6", 512, 32),
        ],
        BLOCKS,
        spec::efficientnet_b5::graph,
    ),
];

macro_rules! file {
    ($net:literal, $name:literal, $prefix:literal, $bytes:literal) => {
        File {
            name: $name,
            net: $net,
            url: concat!("https://download.pytorch.org/models/", $name),
            sha256_prefix: $prefix,
            bytes: $bytes,
            about: "ImageNet-1k, torchvision (IMAGENET1K_V1)",
        }
    };
}

/// Every official weight file.
pub const FILES: &[File] = &[
    file!("resnet18", "resnet18-f37072fd.pth", "f37072fd", 46_830_000),
    file!("resnet50", "resnet50-0676ba61.pth", "0676ba61", 102_531_000),
    file!("wide_resnet50_2", "wide_resnet50_2-95faca4d.pth", "95faca4d", 138_223_000),
    file!("mobilenetv2_100", "mobilenet_v2-b0353104.pth", "b0353104", 14_213_000),
    file!("mobilenetv3_large_100", "mobilenet_v3_large-8738ca79.pth", "8738ca79", 22_140_000),
    file!("efficientnet_b5", "efficientnet_b5_lukemelas-1a07897c.pth", "1a07897c", 122_541_000),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_agrees_with_the_graphs() {
        for net in NETS {
            let graph = (net.graph)();
            let layers: Vec<Layer> = net.layers.to_vec();
            let taps: Vec<Layer> = graph
                .taps
                .iter()
                .zip(&layers)
                .map(|(tap, l)| {
                    assert_eq!(tap.name, l.name, "{}", net.id);
                    Layer {
                        name: l.name,
                        channels: graph.nodes[tap.node].channels,
                        stride: graph.nodes[tap.node].stride,
                    }
                })
                .collect();
            assert_eq!(taps, layers, "{}", net.id);
            assert_eq!(graph.taps.len(), layers.len());
            assert!(net.default_layers.iter().all(|name| layers.iter().any(|l| l.name == *name)));
        }
    }

    #[test]
    fn every_file_belongs_to_a_net_and_carries_its_digits() {
        for file in FILES {
            assert!(Net::find(file.net).unwrap().files().any(|f| f.name == file.name));
            assert!(file.name.contains(&format!("-{}.pth", file.sha256_prefix)) && file.sha256_prefix.len() == 8);
        }
        let error = Net::find("resnet19").unwrap_err().to_string();
        assert!(error.contains("resnet19") && error.contains("efficientnet_b5"), "{error}");
    }
}
