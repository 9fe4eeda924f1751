//! Prints this machine's ceilings as one JSON object.

fn main() {
    // `cargo test --benches` starts this too; it has nothing to test.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let ceiling = serde_json::json!({
        "threads": rayon::current_num_threads(),
        "gflops": blemish_kernels::ceiling::gflops(),
        "read_gbs": blemish_kernels::ceiling::read_gbs(),
    });
    println!("{ceiling}");
}
