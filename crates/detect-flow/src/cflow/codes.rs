use std::sync::{Arc, Mutex, PoisonError};

use blemish_flow::positional_encoding;

use crate::Result;
use crate::features::Size;

/// The code of each position of each layer, `[h, w, condition]`.
pub(super) fn codes(sizes: &[Size], condition: usize) -> Result<Vec<Vec<f32>>> {
    let code = |&(h, w, _): &Size| Ok(positional_encoding(condition, h, w)?.into_raw_vec_and_offset().0);
    sizes.iter().map(code).collect()
}

/// The codes for pictures of the size seen last: as good as always that of the pictures learned from.
#[derive(Default)]
pub(super) struct Kept(Mutex<Option<Arc<Codes>>>);

/// Codes and the sizes they are for.
pub(super) struct Codes {
    sizes: Vec<Size>,
    pub(super) values: Vec<Vec<f32>>,
}

impl Kept {
    /// The codes for maps of these sizes.
    pub(super) fn get(&self, sizes: &[Size], condition: usize) -> Result<Arc<Codes>> {
        // What is kept is whole, whatever another thread did.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(codes) = kept.as_ref().filter(|codes| codes.sizes == sizes) {
            return Ok(codes.clone());
        }
        let codes = Arc::new(Codes { sizes: sizes.to_vec(), values: codes(sizes, condition)? });
        *kept = Some(codes.clone());
        Ok(codes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_until_the_size_changes() {
        let (kept, sizes) = (Kept::default(), [(2, 3, 5), (1, 1, 7)]);
        let first = kept.get(&sizes, 8).unwrap();
        assert_eq!(first.values, codes(&sizes, 8).unwrap());
        assert!(Arc::ptr_eq(&first, &kept.get(&sizes, 8).unwrap()));
        let other = kept.get(&[(4, 3, 5)], 8).unwrap();
        assert_eq!(other.values[0].len(), 4 * 3 * 8);
        assert_eq!(kept.get(&sizes, 8).unwrap().values, first.values);
    }
}
