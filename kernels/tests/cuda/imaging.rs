use blemish_kernels::blur::{self, Border};
use blemish_kernels::cuda::embed::{Terms, embed, embed_terms, select};
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
    // Tiles beside and below each other, and one that fits no shared memory.
    let shapes = [
        ([1, 20, 31], 4.0),
        ([3, 7, 4], 1.3),
        ([2, 1, 9], 2.0),
        ([1, 5, 5], 0.0),
        ([2, 34, 140], 2.6),
        ([1, 5, 6], 60.0),
    ];
    for ([n, h, w], sigma) in shapes {
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
    // Channels one and four at a time, heights of all remainders.
    embeds(&cuda, [[6, 9, 5], [3, 4, 7], [6, 9, 2]]);
    embeds(&cuda, [[4, 5, 8], [2, 3, 16], [4, 5, 132]]);
    embeds(&cuda, [[17, 3, 4], [8, 1, 4], [17, 3, 8]]);
}

fn embeds(cuda: &Cuda, sizes: [[usize; 3]; 3]) {
    let [height, width, _] = sizes[0];
    let channels = sizes.iter().map(|s| s[2]).sum();
    let maps: Vec<Array4<f32>> = sizes.iter().map(|[h, w, c]| random((2, *h, *w, *c), 3 + *c as u64)).collect();
    let device: Vec<Buffer<f32>> = maps.iter().map(|m| upload(cuda, m)).collect();
    let arguments: Vec<(&Buffer<f32>, [usize; 3])> = device.iter().zip(sizes).collect();
    let got = embed(cuda, 2, &arguments).unwrap().read().unwrap();
    let spec = PoolSpec { kernel: [3, 3], stride: [1, 1], padding: [1; 4] };
    let mut wanted = Array4::<f32>::zeros((2, height, width, channels));
    let mut first = 0;
    for (map, [h, w, c]) in maps.iter().zip(sizes) {
        let mut mean = Array4::zeros(map.dim());
        avg_pool(map.as_slice().unwrap(), [2, h, w, c], &spec, true, mean.as_slice_mut().unwrap(), Par::Serial)
            .unwrap();
        let part = resize::bilinear(mean.view(), (height, width)).unwrap();
        wanted.slice_mut(s![.., .., .., first..first + c]).assign(&part);
        first += c;
    }
    assert_eq!(got, wanted.into_raw_vec_and_offset().0);
    assert!(embed(cuda, 1, &arguments).is_err() && embed(cuda, 1, &[]).is_err());
}

#[test]
fn weighted_embeddings_add_up_their_layers() {
    let Some(cuda) = open() else { return };
    let (sizes, width) = ([[5, 6, 4], [3, 2, 3]], 9);
    let maps: Vec<Array4<f32>> = sizes.iter().map(|[h, w, c]| random((2, *h, *w, *c), 3 + *c as u64)).collect();
    let device: Vec<Buffer<f32>> = maps.iter().map(|m| upload(&cuda, m)).collect();
    // Columns of which one is shared, and one has no terms.
    let columns = |c: usize, count: usize| -> Vec<Vec<(usize, usize, f32)>> {
        let term = |j: usize, t: usize| ((j + t) % c, (3 * j + 4 * t) % 9, 0.25 * (t + 1) as f32 - 0.1 * j as f32);
        (0..count).map(|j| (0..j).map(|t| term(j, t)).collect()).collect()
    };
    let (first, second) = (columns(4, 5), columns(3, 5));
    let terms = [Terms::new(&cuda, 4, &first).unwrap(), Terms::new(&cuda, 3, &second).unwrap()];
    let layers = [(&device[0], sizes[0], &terms[0], 0), (&device[1], sizes[1], &terms[1], 4)];
    let got = embed_terms(&cuda, 2, &layers, width).unwrap();
    let mut wanted = Array4::<f32>::zeros((2, 5, 6, width));
    for (map, columns, offset) in [(&maps[0], &first, 0), (&maps[1], &second, 4)] {
        let (n, h, w, _) = map.dim();
        let own = Array4::from_shape_fn((n, h, w, columns.len()), |(i, y, x, j)| {
            let value = |&(channel, tap, weight): &(usize, usize, f32)| {
                let (v, u) = ((y + tap / 3).wrapping_sub(1), (x + tap % 3).wrapping_sub(1));
                map.get((i, v, u, channel)).map_or(0.0, |value| value * weight)
            };
            columns[j].iter().map(value).sum::<f32>()
        });
        let mut part = wanted.slice_mut(s![.., .., .., offset..offset + columns.len()]);
        part += &resize::bilinear(own.view(), (5, 6)).unwrap();
    }
    let wanted = wanted.into_raw_vec_and_offset().0;
    assert_eq!(got.read().unwrap(), wanted);
    assert!(embed_terms(&cuda, 2, &layers, width - 1).is_err() && embed_terms(&cuda, 1, &layers, width).is_err());
    assert!(Terms::new(&cuda, 3, &first).is_err() && Terms::new(&cuda, 3, &[]).is_err());
    assert!(Terms::new(&cuda, 1, &[vec![(0, 9, 1.0)]]).is_err());

    let mut picked = cuda.zeros(3 * width).unwrap();
    select(&got, width, &[(59, 0), (7, 2), (7, 1)], &mut picked).unwrap();
    let row = |i: usize| &wanted[i * width..][..width];
    assert_eq!(picked.read().unwrap(), [row(59), row(7), row(7)].concat());
    select(&got, width, &[], &mut picked).unwrap();
    assert!(
        select(&got, width, &[(60, 0)], &mut picked).is_err() && select(&got, width, &[(0, 3)], &mut picked).is_err()
    );
}
