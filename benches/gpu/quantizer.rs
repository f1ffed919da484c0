//! The residual quantizer: three codebooks of 1,024 codes of 64 numbers.

use bidslate::cuda::launch::Buffer;
use bidslate::cuda::quantize::Codebook;
use criterion::{Criterion, Throughput};

use crate::device::Device;

pub fn bench(criterion: &mut Criterion, device: &Device) {
    let (layers, codes, width) = device.pick((3, 1024, 64), (2, 40, 8));
    let rows = device.pick(1 << 17, 20);
    let values = device.numbers(layers * codes * width);
    let codebook = Codebook::new(&device.stream, &values, [layers, codes, width]).expect("device memory");
    let y = device.rotated_f32(rows * width, rows * width * 4);
    let mut found = Buffer::new(&device.stream, rows * layers).expect("device memory");
    let mut fault = Buffer::new(&device.stream, rows).expect("device memory");
    // The distance to a code as a product, as performance models count it.
    let flops = Throughput::Elements((2 * rows * layers * codes * width) as u64);
    device.bench(criterion, &format!("quantize {rows}x{layers}x{codes}x{width}"), flops, |run| {
        codebook.quantize(&*device.stream, &y[run % y.len()], rows, &mut found, &mut fault)
    });
}
