//! The residual quantizer: three codebooks of 1,024 codes of 64 numbers.

use bidslate::cuda::launch::Buffer;
use bidslate::cuda::quantize::Codebook;
use criterion::Criterion;

use crate::costs::{self, throughput};
use crate::device::{Cache, Device};

pub fn bench(criterion: &mut Criterion, device: &Device) {
    let shape @ [layers, codes, width] = device.pick([3, 1024, 64], [2, 40, 8]);
    let values = device.numbers(layers * codes * width);
    let codebook = Codebook::new(&device.stream, &values, shape).expect("device memory");
    for rows in device.pick(vec![1, 8, 32, 128, 1 << 17], vec![20]) {
        let y = device.rotated_f32(rows * width, rows * width * 4);
        let mut found = Buffer::new(&device.stream, rows * layers).expect("device memory");
        let mut fault = Buffer::new(&device.stream, rows).expect("device memory");
        // The distance to a code as a product, as performance models count it.
        let least = throughput(costs::quantizer(rows, shape));
        let name = format!("quantize {rows}x{layers}x{codes}x{width}");
        device.bench(criterion, &name, least, Cache::Warm, |run| {
            codebook.quantize(&*device.stream, &y[run % y.len()], rows, &mut found, &mut fault)
        });
    }
}
