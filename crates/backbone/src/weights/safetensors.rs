use std::collections::BTreeMap;

use blemish_tensor::{DType, MappedFile, Tensor};
use safetensors::{Dtype, SafeTensors};

/// The tensors of a safetensors file, lying in the map.
pub(super) fn read(file: &MappedFile) -> Result<BTreeMap<String, Tensor>, String> {
    let (header, metadata) = SafeTensors::read_metadata(file.bytes())
        .map_err(|e| format!("is neither a PyTorch file nor a whole safetensors file ({e})"))?;
    let mut tensors = BTreeMap::new();
    for (name, info) in metadata.tensors() {
        let dtype = match info.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F64 => DType::F64,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::U8 | Dtype::BOOL => DType::U8,
            Dtype::I8 => DType::I8,
            Dtype::U32 => DType::U32,
            Dtype::I64 => DType::I64,
            other => return Err(format!("tensor {name} has the type {other:?}, which is not read")),
        };
        let at = |offset: usize| offset.saturating_add(header + 8);
        let range = at(info.data_offsets.0)..at(info.data_offsets.1);
        let tensor = Tensor::from_mapped(file, range, dtype, info.shape.clone()).map_err(|e| format!("{name}: {e}"))?;
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}
