//! Build script of every crate whose tests, examples or binaries load libtorch: gives them an rpath to the one that
//! torch-sys linked, so that they start without `LD_LIBRARY_PATH`.

fn main() {
    // No file decides it. (Cargo runs it again when it has changed, or what torch-sys says.)
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    // Set by torch-sys (`links = "tch"`) for its direct dependents.
    if let Ok(directory) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{directory}");
    }
}
