//! Weights before they are folded into a network.

mod naming;
mod pth;
mod safetensors;
mod select;
mod untrained;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use blemish_tensor::{MappedFile, Tensor};

use crate::catalogue::{NETS, Net};
use crate::{BackboneError, Result};

pub use naming::Naming;

/// Where weights came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Read from a file.
    File {
        /// The file.
        path: PathBuf,
    },
    /// Drawn from a seed; never trained on anything.
    Untrained {
        /// The seed.
        seed: u64,
    },
    /// Handed over in memory, as from a model file.
    Embedded,
}

/// Named weight tensors of one network, or the seed to draw them from.
#[derive(Clone, Debug)]
pub struct WeightSet {
    source: Source,
    origin: Origin,
}

#[derive(Clone, Debug)]
enum Source {
    Tensors { tensors: BTreeMap<String, Tensor>, naming: Naming },
    Untrained { net: &'static Net, seed: u64 },
}

impl WeightSet {
    /// Reads a safetensors file or a PyTorch `.pth` (zip or the format before 1.6); which one is told by its content.
    ///
    /// A `.pth` is read by a small interpreter that builds tensors, containers, strings and numbers and refuses
    /// everything else by name: nothing in the file is executed. Nested dictionaries (`state_dict`) and prefixes
    /// (`module.`) are taken off. Tensors lie in the mapped file where their layout allows.
    ///
    /// # Errors
    /// [`BackboneError::File`] or a tensor error if the file cannot be read, is damaged, or holds no tensors.
    pub fn open(path: &Path) -> Result<Self> {
        let file = MappedFile::open(path)?;
        let read = match file.bytes() {
            [] => Err("is empty".to_owned()),
            [b'P', b'K', 3, 4, ..] | [0x80, ..] => pth::read(&file),
            _ => safetensors::read(&file),
        };
        let tensors = read.and_then(|tensors| match tensors.is_empty() {
            true => Err("holds no tensors".to_owned()),
            false => Ok(tensors),
        });
        let tensors = tensors.map_err(|why| BackboneError::File { path: path.to_path_buf(), why })?;
        Ok(WeightSet::new(tensors, Origin::File { path: path.to_path_buf() }))
    }

    /// Weights drawn from `seed` for the network `id`, scaled so that activations keep their order of size through depth.
    ///
    /// # Errors
    /// [`BackboneError::UnknownNet`].
    pub fn untrained(id: &str, seed: u64) -> Result<Self> {
        Ok(WeightSet { source: Source::Untrained { net: Net::find(id)?, seed }, origin: Origin::Untrained { seed } })
    }

    /// Weights in memory, by name.
    ///
    /// # Errors
    /// [`BackboneError::File`] if two tensors have the same name.
    pub fn from_tensors(tensors: impl IntoIterator<Item = (String, Tensor)>) -> Result<Self> {
        let mut all = BTreeMap::new();
        for (name, tensor) in tensors {
            if let Some(old) = all.insert(name.clone(), tensor) {
                let why = format!("two tensors are called {name}; the first has shape {:?}", old.shape());
                return Err(BackboneError::File { path: PathBuf::from("(in memory)"), why });
            }
        }
        Ok(WeightSet::new(all, Origin::Embedded))
    }

    fn new(tensors: BTreeMap<String, Tensor>, origin: Origin) -> Self {
        let tensors = naming::strip_prefixes(tensors);
        let naming = Naming::of(tensors.keys().map(String::as_str));
        WeightSet { source: Source::Tensors { tensors, naming }, origin }
    }

    /// Where they came from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whose names the tensors carry; this also settles the epsilon of the batch norms.
    pub fn naming(&self) -> Naming {
        match &self.source {
            Source::Tensors { naming, .. } => *naming,
            Source::Untrained { .. } => Naming::Timm,
        }
    }

    /// Names and tensors as they were read, prefixes taken off; none for untrained weights, which are drawn when needed.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        let tensors = match &self.source {
            Source::Tensors { tensors, .. } => Some(tensors),
            Source::Untrained { .. } => None,
        };
        tensors.into_iter().flatten().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The networks that these weights fit whole.
    pub fn fits(&self) -> Vec<&'static str> {
        match &self.source {
            Source::Tensors { tensors, naming } => {
                NETS.iter().filter(|net| select::fits(net, tensors, *naming)).map(|net| net.id).collect()
            }
            Source::Untrained { net, .. } => vec![net.id],
        }
    }

    /// All tensors of the network `id` in `f32`, under timm's names and epsilon, checked; the classifier is left out.
    ///
    /// # Errors
    /// [`BackboneError::UnknownNet`], or [`BackboneError::Weights`] naming every tensor that is missing, unknown,
    /// misshapen or holds values that are not finite.
    pub fn resolve(&self, id: &str) -> Result<Vec<(String, Tensor)>> {
        let net = Net::find(id)?;
        let graph = (net.graph)();
        self.select(net, &graph, graph.nodes.len() - 1)
    }
}
