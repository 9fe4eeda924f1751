use blemish_kernels::blur::{self, Border};
use blemish_kernels::cuda::embed::embed;
use blemish_kernels::pool::{PoolSpec, avg_pool};
use blemish_kernels::{Par, resize};
use blemish_tensor::cuda::Buffer;
use ndarray::{Array3, Array4, s};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

#[test]
fn blur_is_the_cpu_s() {
    let Some(cuda) = open() else { return };
    for ([n, h, w], sigma) in [([1, 20, 31], 4.0), ([3, 7, 4], 1.3), ([2, 1, 9], 2.0), ([1, 5, 5], 0.0)] {
        let maps = random((n, h, w), h as u64);
        let device = upload(&cuda, &maps);
        for border in [Border::Reflect, Border::Symmetric] {
            let got = blur::cuda::gaussian(&cuda, &device, [n, h, w], sigma, border).unwrap().read().unwrap();
            for i in 0..n {
                let wanted = blur::gaussian_with(maps.slice(s![i, .., ..]), sigma, border).unwrap();
                assert_eq!(&got[i * h * w..][..h * w], wanted.as_slice().unwrap(), "{n}x{h}x{w} {border:?}");
            }
        }
    }
    let device = cuda.zeros(12).unwrap();
    assert!(blur::cuda::gaussian(&cuda, &device, [1, 3, 5], 1.0, Border::Reflect).is_err());
    assert!(blur::cuda::gaussian(&cuda, &device, [1, 3, 4], f32::NAN, Border::Reflect).is_err());
}

#[test]
fn resizes_are_the_cpu_s() {
    let Some(cuda) = open() else { return };
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for ((h, w, c), size) in
        [((37, 23, 3), (9, 14)), ((6, 11, 1), (13, 5)), ((1, 1, 3), (2, 3)), ((20, 64, 3), (20, 17))]
    {
        let bytes = Array3::from_shape_simple_fn((h, w, c), || rng.random::<u8>());
        let got = resize::cuda::antialias_u8(&cuda, bytes.view(), size).unwrap().read().unwrap();
        assert_eq!(got, resize::antialias_u8(bytes.view(), size).unwrap().into_raw_vec_and_offset().0);
        let words = Array3::from_shape_simple_fn((h, w, c), || rng.random::<u16>());
        let got = resize::cuda::antialias_u16(&cuda, words.view(), size).unwrap().read().unwrap();
        assert_eq!(got, resize::antialias_u16(words.view(), size).unwrap().into_raw_vec_and_offset().0);
        let maps = random((2, h, w, c), 8);
        let got = resize::cuda::bilinear(&cuda, &upload(&cuda, &maps), 2, [h, w, c], size).unwrap().read().unwrap();
        assert_eq!(got, resize::bilinear(maps.view(), size).unwrap().into_raw_vec_and_offset().0);
    }
}

#[test]
fn embeddings_are_the_cpu_s() {
    let Some(cuda) = open() else { return };
    let sizes = [[6, 9, 5], [3, 4, 7], [6, 9, 2]];
    let maps: Vec<Array4<f32>> = sizes.iter().map(|[h, w, c]| random((2, *h, *w, *c), 3 + *c as u64)).collect();
    let device: Vec<Buffer<f32>> = maps.iter().map(|m| upload(&cuda, m)).collect();
    let arguments: Vec<(&Buffer<f32>, [usize; 3])> = device.iter().zip(sizes).collect();
    let got = embed(&cuda, 2, &arguments).unwrap().read().unwrap();
    let spec = PoolSpec { kernel: [3, 3], stride: [1, 1], padding: [1; 4] };
    let mut wanted = Array4::<f32>::zeros((2, 6, 9, 14));
    let mut first = 0;
    for (map, [h, w, c]) in maps.iter().zip(sizes) {
        let mut mean = Array4::zeros(map.dim());
        avg_pool(map.as_slice().unwrap(), [2, h, w, c], &spec, true, mean.as_slice_mut().unwrap(), Par::Serial)
            .unwrap();
        let part = resize::bilinear(mean.view(), (6, 9)).unwrap();
        wanted.slice_mut(s![.., .., .., first..first + c]).assign(&part);
        first += c;
    }
    assert_eq!(got, wanted.into_raw_vec_and_offset().0);
    assert!(embed(&cuda, 1, &arguments).is_err() && embed(&cuda, 1, &[]).is_err());
}
