//! The descriptions that launchers are made from, against the signatures of the kernels.

use bidslate::cuda;
use simt::{Build, Emulator, Signature};

#[test]
fn every_launcher_matches_the_signature_of_its_kernel() {
    let signatures = Emulator::open(Build::Plain).unwrap().kernels();
    let mut described = 0;
    for kernel in cuda::kernels().chain(crate::libm::KERNELS).chain(crate::ptx::KERNELS) {
        let found = signatures.iter().find(|signature| signature.name == kernel.name);
        let signature = found.unwrap_or_else(|| panic!("no kernel is called {}", kernel.name));
        assert_eq!(signature.file, format!("kernels/{}.cu", kernel.file), "{}", kernel.name);
        let wanted: Vec<&str> = kernel.parameters.iter().map(|parameter| parameter.cpp).collect();
        let found: Vec<&str> =
            signature.arguments.iter().map(|argument| argument.type_name.as_str()).collect();
        assert_eq!(wanted, found, "{}", kernel.name);
        described += 1;
    }
    let of_project = |signature: &&Signature| signature.file.starts_with("kernels/");
    assert_eq!(described, signatures.iter().filter(of_project).count());
}
