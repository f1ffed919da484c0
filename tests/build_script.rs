//! The parts of the build script that find nvcc and read its output.

#[allow(dead_code)]
#[path = "../build/fatbin.rs"]
mod fatbin;
#[allow(dead_code)]
#[path = "../build/nvcc.rs"]
mod nvcc;

use std::path::PathBuf;

fn candidates(variables: &[(&str, &str)]) -> Vec<PathBuf> {
    let lookup = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
    nvcc::candidates(lookup, || vec!["/python".into()])
}

#[test]
fn nvcc_that_is_named_is_the_only_candidate() {
    assert_eq!(candidates(&[("CUDA_HOME", "/home"), ("NVCC", "/my/nvcc")]), [PathBuf::from("/my/nvcc")]);
}

#[test]
fn nvcc_is_looked_for_in_the_order_of_how_clearly_it_was_asked_for() {
    let found = candidates(&[("CUDA_PATH", "/path"), ("CUDA_HOME", "/home"), ("PATH", "/a:/b")]);
    let expected = [
        "/home/bin/nvcc",
        "/path/bin/nvcc",
        "/a/nvcc",
        "/b/nvcc",
        "/usr/local/cuda/bin/nvcc",
        "target/cuda/nvidia/cu13/bin/nvcc",
        "/python/nvidia/cu13/bin/nvcc",
    ];
    assert_eq!(found, expected.map(PathBuf::from));
}

#[test]
fn options_of_a_file_stand_in_its_opening_comment() {
    let source = "// Prices.\n// nvcc: --fmad=false -G\n//\n// nvcc: -O1\n\n// nvcc: -O0\n";
    assert_eq!(fatbin::file_options(source), ["--fmad=false", "-G", "-O1"]);
    assert!(fatbin::file_options("#include \"ptx.cuh\"\n// nvcc: -G\n").is_empty());
}

#[test]
fn spills_and_serialised_products_are_shown() {
    let log = "ptxas info    : Used 28 registers\n\
               ptxas warning : Registers are spilled to local memory in function 'a', 8 bytes spill stores\n\
               ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized\n";
    let notable = fatbin::notable(log);
    assert_eq!(notable.len(), 2);
    assert!(notable[0].contains("'a'") && notable[1].contains("C7510"));
}
