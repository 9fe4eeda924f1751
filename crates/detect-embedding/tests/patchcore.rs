//! PatchCore against anomalib 2.7 (`tests/golden/patchcore`), from feature maps to scores and maps.

use blemish_detect_embedding::Mode;
use blemish_detect_embedding::patchcore::{MemoryBank, Scoring, embed};
use blemish_kernels::kcenter::greedy;
use blemish_kernels::nearest::Bank;
use ndarray::{Array1, Array2, Array4, ArrayD, Axis, Ix1, Ix2, Ix4, s};
use safetensors::SafeTensors;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/patchcore/patchcore.safetensors");

struct Golden(Vec<u8>);

impl Golden {
    fn open() -> Self {
        Golden(std::fs::read(GOLDEN).expect(GOLDEN))
    }

    fn get<T>(&self, name: &str, size: usize, value: fn(&[u8]) -> T) -> ArrayD<T> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let values = tensor.data().chunks_exact(size).map(value).collect();
        ArrayD::from_shape_vec(tensor.shape(), values).unwrap()
    }

    fn f32(&self, name: &str) -> ArrayD<f32> {
        self.get(name, 4, |b| f32::from_le_bytes(b.try_into().unwrap()))
    }

    fn matrix(&self, name: &str) -> Array2<f32> {
        self.f32(name).into_dimensionality::<Ix2>().unwrap()
    }

    fn indices(&self, name: &str) -> Vec<usize> {
        self.get(name, 4, |b| i32::from_le_bytes(b.try_into().unwrap())).iter().map(|&i| i as usize).collect()
    }

    /// Maps of one layer as `[n, h, w, c]`.
    fn maps(&self, name: &str) -> Array4<f32> {
        self.f32(name)
            .into_dimensionality::<Ix4>()
            .unwrap()
            .permuted_axes([0, 2, 3, 1])
            .as_standard_layout()
            .into_owned()
    }

    fn embedding(&self) -> Array2<f32> {
        embed(&[self.maps("features/layer1"), self.maps("features/layer2")], Mode::Anomalib).unwrap()
    }

    fn memory(&self, num_neighbors: usize) -> MemoryBank {
        let rows = self.embedding().select(Axis(0), &self.indices("coreset_raw/indices"));
        MemoryBank::new(rows, Scoring { num_neighbors, sigma: 4.0, mode: Mode::Anomalib }).unwrap()
    }
}

/// Asserts `max |got - want| <= tolerance * rms(want)`.
fn near<'a>(what: &str, got: impl IntoIterator<Item = &'a f32>, want: impl IntoIterator<Item = f64>, tolerance: f64) {
    let want: Vec<f64> = want.into_iter().collect();
    let got: Vec<f64> = got.into_iter().map(|v| f64::from(*v)).collect();
    assert_eq!(got.len(), want.len(), "{what}");
    let rms = (want.iter().map(|v| v * v).sum::<f64>() / want.len() as f64).sqrt();
    let worst = got.iter().zip(&want).map(|(g, w)| (g - w).abs()).fold(0.0, f64::max);
    assert!(worst <= tolerance * rms, "{what}: {:.1e} of the rms, {tolerance:.0e} allowed", worst / rms);
}

fn wide<D: ndarray::Dimension>(array: &ndarray::Array<f32, D>) -> Vec<f64> {
    array.iter().map(|v| f64::from(*v)).collect()
}

#[test]
fn embeddings_are_anomalibs() {
    let golden = Golden::open();
    for layer in ["layer1", "layer2"] {
        let maps = golden.maps(&format!("features/{layer}")).slice(s![..1, .., .., ..]).to_owned();
        let want = golden.maps(&format!("pooled/{layer}"));
        near(layer, &embed(&[maps], Mode::Anomalib).unwrap(), wide(&want), 1e-5);
    }
    let all = golden.embedding();
    assert_eq!(all.dim(), (2048, 32));
    near("embedding", all.slice(s![..64, ..]), wide(&golden.matrix("embedding")), 1e-5);
}

#[test]
fn a_picture_embeds_alike_in_any_batch() {
    let golden = Golden::open();
    let maps = [golden.maps("features/layer1"), golden.maps("features/layer2")];
    for mode in [Mode::Anomalib, Mode::Paper] {
        let all = embed(&maps, mode).unwrap();
        let one = maps.each_ref().map(|m| m.slice(s![5..6, .., .., ..]).to_owned());
        assert_eq!(embed(&one, mode).unwrap(), all.slice(s![5 * 256..6 * 256, ..]));
    }
    assert!(embed(&[], Mode::Anomalib).is_err());
    let uneven = [maps[0].clone(), maps[1].slice(s![..3, .., .., ..]).to_owned()];
    assert!(embed(&uneven, Mode::Anomalib).is_err());
}

#[test]
fn coresets_are_anomalibs() {
    let golden = Golden::open();
    let train = golden.embedding().slice(s![..1536, ..]).to_owned();
    let projection = golden.matrix("projection");
    let projected = train.dot(&projection.t());
    near("projected", projected.slice(s![..8, ..]), wide(&golden.matrix("projected")), 1e-5);
    let cases = [
        ("coreset_raw", train, golden.indices("start")[0]),
        ("coreset_projected", projected, golden.indices("start")[0]),
        ("ties", golden.matrix("ties/points"), golden.indices("ties/start")[0]),
        ("repeated", golden.matrix("repeated/points"), golden.indices("repeated/start")[0]),
    ];
    for (name, points, start) in cases {
        let want = golden.indices(&format!("{name}/indices"));
        let got = greedy(points.view(), want.len(), start, &mut |_| true).unwrap();
        assert_eq!(got.picks, want, "{name}");
        let radius = golden.f32(&format!("{name}/radius"));
        assert!(got.radius[0].is_infinite() && radius[[0]].is_infinite());
        near(name, &got.radius[1..], radius.iter().skip(1).map(|v| f64::from(*v)), 1e-5);
    }
}

#[test]
fn neighbours_are_anomalibs() {
    let golden = Golden::open();
    let memory = golden.memory(9);
    let test = golden.embedding().slice(s![1536.., ..]).to_owned();
    let bank = Bank::new(memory.rows().to_owned()).unwrap();
    let found = bank.search(test.view(), 9).unwrap();
    let distance = golden.get("nearest/distance_f64", 8, |b| f64::from_le_bytes(b.try_into().unwrap()));
    near("nearest", found.distance.column(0), distance.iter().copied(), 1e-5);
    let nearest: Vec<usize> = found.index.column(0).iter().map(|&i| i as usize).collect();
    assert_eq!(nearest, golden.indices("nearest/index"));
    near("top9", &found.distance, wide(&golden.matrix("top9/distance")), 1e-5);
    let safe = golden.get("top9/index_is_safe", 1, |b| b[0] == 1);
    let compared = found.index.iter().zip(golden.indices("top9/index")).zip(safe.iter()).filter(|(_, safe)| **safe);
    assert!(compared.clone().count() > 4000);
    assert!(compared.clone().all(|((got, want), _)| *got as usize == want));
}

#[test]
fn scores_and_maps_are_anomalibs() {
    let golden = Golden::open();
    let test = golden.embedding().slice(s![1536.., ..]).to_owned();
    for k in [1, 5, 9, 1000] {
        let got = golden.memory(k).score(test.view(), (16, 16), (64, 64)).unwrap();
        let scores: Array1<f32> = got.iter().map(|p| p.score).collect();
        let want = golden.f32(&format!("score_k{k}")).into_dimensionality::<Ix1>().unwrap();
        near(&format!("score, {k} neighbours"), &scores, wide(&want), 1e-5);
        let maps: Vec<f32> = got.iter().flat_map(|p| p.map.as_ref().unwrap().view().to_owned()).collect();
        near("map", &maps, wide(&golden.f32("map_64x64")), 5e-5);
    }
    let odd = golden.memory(9).score(test.slice(s![..256, ..]), (16, 16), (100, 75)).unwrap();
    let map = odd[0].map.as_ref().unwrap().view();
    near("odd map", map.slice(s![..;3, ..]), wide(&golden.f32("map_100x75")), 5e-5);
}

#[test]
fn scores_do_not_depend_on_batch_or_threads() {
    let golden = Golden::open();
    let memory = golden.memory(9);
    let test = golden.embedding().slice(s![1024.., ..]).to_owned();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| memory.score(test.view(), (16, 16), (40, 50)).unwrap())
    };
    let all = run(1);
    for threads in [2, 7] {
        for (a, b) in all.iter().zip(run(threads)) {
            assert_eq!((a.score.to_bits(), &a.map), (b.score.to_bits(), &b.map));
        }
    }
    for (i, a) in all.iter().enumerate() {
        let one = memory.score(test.slice(s![i * 256..(i + 1) * 256, ..]), (16, 16), (40, 50)).unwrap();
        assert_eq!((a.score.to_bits(), &a.map), (one[0].score.to_bits(), &one[0].map));
    }
}
