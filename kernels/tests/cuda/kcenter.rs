use blemish_kernels::kcenter;

use super::*;

#[test]
fn picks_are_the_cpu_s() {
    let Some(cuda) = open() else { return };
    let many = [(random((700, 20), 1), 90), (tied(400, 2, 6, 2), 60), (random((1, 3), 3), 1), (tied(50, 3, 1, 4), 20)];
    for (points, count) in many {
        let start = points.nrows() / 3;
        let shape = [points.nrows(), points.ncols()];
        let wanted = kcenter::greedy(points.view(), count, start, &mut |_| true).unwrap();
        let device = upload(&cuda, &points);
        assert_eq!(kcenter::cuda::greedy(&cuda, &device, shape, count, start, &mut |_| true).unwrap(), wanted);
        let stopped = kcenter::cuda::greedy(&cuda, &device, shape, count, start, &mut |_| false).unwrap();
        assert_eq!(stopped.picks, wanted.picks[..1]);
        assert!(kcenter::cuda::greedy(&cuda, &device, shape, shape[0] + 1, start, &mut |_| true).is_err());
    }
}

#[test]
fn projections_are_the_cpu_s() {
    let Some(cuda) = open() else { return };
    for (n, in_dim, out_dim, seed) in [
        (1, 1, 1, 0),
        (19, 550, 33, 7),
        (8, 3, 300, u64::MAX),
        (9, 4000, 5, 1 << 40),
        (21, 2000, 9, 3),
        (3, 9000, 2, 4),
    ] {
        let projection = kcenter::SparseProjection::new(in_dim, out_dim, seed).unwrap();
        let rows = random((n, in_dim), seed);
        let wanted = projection.apply(rows.view()).unwrap();
        let device = kcenter::cuda::Projection::new(&cuda, &projection).unwrap();
        let mut out = cuda.zeros((n + 2) * out_dim).unwrap();
        device.apply(&upload(&cuda, &rows), n, &mut out, 2).unwrap();
        assert_eq!(out.read().unwrap()[2 * out_dim..], *wanted.as_slice().unwrap(), "{n} x {in_dim} to {out_dim}");
        assert!(device.apply(&upload(&cuda, &rows), n, &mut out, 3).is_err());
        assert!(device.apply(&upload(&cuda, &rows), n + 1, &mut out, 0).is_err());
    }
}

#[test]
fn parts_of_a_feed_are_not_written_over_before_they_are_copied() {
    let Some(cuda) = open() else { return };
    let (rows, parts, in_dim, out_dim) = (5, 7, 40, 6);
    let projection = kcenter::SparseProjection::new(in_dim, out_dim, 3).unwrap();
    let values = random((rows * parts, in_dim), 9);
    let device = kcenter::cuda::Projection::new(&cuda, &projection).unwrap();
    let mut out = cuda.zeros(rows * parts * out_dim).unwrap();
    let mut feed = cuda.feed::<f32>(rows * in_dim).unwrap();
    let mut sent = values.as_slice().unwrap().chunks(rows * in_dim);
    feed.send(sent.next().unwrap()).unwrap();
    // Nothing here waits for the GPU until the end.
    for i in 0..parts {
        if let Some(next) = sent.next() {
            feed.send(next).unwrap();
        }
        device.apply(feed.receive().unwrap(), rows, &mut out, i * rows).unwrap();
    }
    assert_eq!(out.read().unwrap(), *projection.apply(values.view()).unwrap().as_slice().unwrap());
}

#[test]
fn odd_sizes_are_picked_and_projected_like_on_the_cpu() {
    let Some(cuda) = open() else { return };
    for (i, (n, d)) in [(1, 1), (2, 3), (33, 1), (65, 100), (31, 550), (17, 1536), (9, 1792)].into_iter().enumerate() {
        let points = random((n, d), i as u64);
        let device = upload(&cuda, &points);
        // One, and all of them.
        for count in [1, n] {
            let wanted = kcenter::greedy(points.view(), count, n - 1, &mut |_| true).unwrap();
            let got = kcenter::cuda::greedy(&cuda, &device, [n, d], count, n - 1, &mut |_| true).unwrap();
            assert_eq!(got, wanted, "{count} of {n} x {d}");
        }
        let projection = kcenter::SparseProjection::new(d, 7, i as u64).unwrap();
        let mut out = cuda.zeros(n * 7).unwrap();
        kcenter::cuda::Projection::new(&cuda, &projection).unwrap().apply(&device, n, &mut out, 0).unwrap();
        assert_eq!(
            out.read().unwrap(),
            projection.apply(points.view()).unwrap().into_raw_vec_and_offset().0,
            "{n} x {d}"
        );
    }
}
