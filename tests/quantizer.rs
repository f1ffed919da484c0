//! Semantic ids against their definition, and what fitting promises.

use bidslate::catalog::{
    CodeReport, EncoderLayer, FitOptions, Quantizer, QuantizerKind, Quantizers, fit, read_matrix,
};
use bidslate::error::CatalogError;
use bidslate::model::config::{ModelConfig, ModelSize};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

fn numbers(count: usize, rng: &mut Xoshiro256PlusPlus) -> Vec<f32> {
    (0..count).map(|_| rng.random_range(-1.0..1.0f32)).collect()
}

/// Rows around `centers` well separated points.
fn clusters(rows: usize, centers: usize, width: usize, seed: u64) -> Vec<f32> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let places = numbers(centers * width, &mut rng);
    (0..rows)
        .flat_map(|row| {
            let place = &places[row % centers * width..][..width];
            place.iter().map(|value| 10.0 * value + rng.random_range(-0.01..0.01f32)).collect::<Vec<_>>()
        })
        .collect()
}

/// The definition, loop by loop, in the documented order of summation.
fn naive(
    embedding: &[f32],
    encoder: &[EncoderLayer],
    codebook: &[f32],
    [layers, codes, width]: [usize; 3],
) -> Vec<u16> {
    let mut y = embedding.to_vec();
    for (i, layer) in encoder.iter().enumerate() {
        if i > 0 {
            y.iter_mut().for_each(|value| *value = value.max(0.0));
        }
        let inputs = y.len();
        y = (0..layer.bias.len())
            .map(|o| {
                let mut sum = 0.0;
                (0..inputs).for_each(|k| sum += y[k] * layer.weight[o * inputs + k]);
                sum + layer.bias[o]
            })
            .collect();
    }
    let mut found = Vec::new();
    for layer in 0..layers {
        let entry = |k: usize| &codebook[(layer * codes + k) * width..][..width];
        let distance = |k: usize| y.iter().zip(entry(k)).fold(0.0f32, |sum, (r, c)| sum + (r - c) * (r - c));
        let mut best = 0;
        (1..codes).for_each(|k| {
            if distance(k) < distance(best) {
                best = k;
            }
        });
        found.push(best as u16);
        y = y.iter().zip(entry(best)).map(|(r, c)| r - c).collect();
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn codes_are_those_of_the_definition(
        seed in any::<u64>(),
        sizes in prop::collection::vec(1..20usize, 1..4),
        layers in 1..4usize,
        codes in 1..40usize,
        rows in 0..150usize,
    ) {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let encoder: Vec<EncoderLayer> = sizes
            .windows(2)
            .map(|pair| EncoderLayer {
                weight: numbers(pair[0] * pair[1], &mut rng),
                bias: numbers(pair[1], &mut rng),
            })
            .collect();
        let (input, width) = (sizes[0], sizes[sizes.len() - 1]);
        let shape = [layers, codes, width];
        let codebook = numbers(layers * codes * width, &mut rng);
        let embeddings = numbers(rows * input, &mut rng);
        let quantizer = Quantizer::new(input, encoder.clone(), codebook.clone(), shape).unwrap();
        let expected: Vec<u16> =
            embeddings.chunks(input).flat_map(|row| naive(row, &encoder, &codebook, shape)).collect();
        prop_assert_eq!(quantizer.encode(&embeddings).unwrap(), expected);
    }
}

#[test]
fn the_lowest_of_equal_codes_wins() {
    // Codes 1 and 3 are equal, and 0 lies exactly as far from (1, 0) as 2.
    let codebook = vec![0.0, 0.0, 5.0, 5.0, 2.0, 0.0, 5.0, 5.0];
    let quantizer = Quantizer::new(2, vec![], codebook, [1, 4, 2]).unwrap();
    assert_eq!(quantizer.encode(&[1.0, 0.0, 5.0, 5.0, 9.0, 9.0]).unwrap(), [0, 1, 1]);
}

#[test]
fn an_embedding_that_is_not_finite_is_named() {
    let quantizer = Quantizer::new(2, vec![], vec![0.0, 0.0, 1.0, 1.0], [1, 2, 2]).unwrap();
    let mut embeddings = vec![0.5; 400];
    embeddings[399] = f32::NEG_INFINITY;
    embeddings[260] = f32::NAN;
    let error = quantizer.encode(&embeddings).unwrap_err();
    assert_eq!(error.row, Some(130));
    assert_eq!(error.to_string(), "embedding of row 130: value 0 is NaN, expected a finite number");
    let error = quantizer.encode(&[0.0, 0.0, 0.0, 3e38]).unwrap_err();
    assert_eq!(error.row, Some(1), "{error}");
    assert!(quantizer.encode(&[0.0; 3]).is_err());
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let layer =
        |out: usize, input: usize| EncoderLayer { weight: vec![0.1; out * input], bias: vec![0.0; out] };
    let refused = |input, encoder, codebook: Vec<f32>, shape, words: &str| {
        let error = Quantizer::new(input, encoder, codebook, shape).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    refused(3, vec![layer(2, 4)], vec![0.0; 8], [2, 2, 2], "encoder layer 0 has 8 weights, expected 2 x 3");
    refused(
        3,
        vec![layer(4, 3)],
        vec![0.0; 8],
        [2, 2, 2],
        "the codebook is 2 wide, but the encoder's output 4",
    );
    refused(2, vec![], vec![0.0; 7], [2, 2, 2], "has 7 values, expected 2 x 2 x 2");
    refused(2, vec![], vec![f32::NAN; 8], [2, 2, 2], "NaN");
    refused(0, vec![], vec![], [1, 1, 0], "the codebook has 0 values");
}

#[test]
fn a_quantizer_survives_its_file() {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(6);
    let encoder = vec![
        EncoderLayer { weight: numbers(15, &mut rng), bias: numbers(5, &mut rng) },
        EncoderLayer { weight: numbers(10, &mut rng), bias: numbers(2, &mut rng) },
    ];
    let quantizer = Quantizer::new(3, encoder, numbers(24, &mut rng), [3, 4, 2]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("quantizer.safetensors");
    quantizer.write(&path, QuantizerKind::Creative).unwrap();
    let config = ModelConfig {
        item_embedding_size: 9,
        creative_embedding_size: Some(3),
        ..ModelConfig::of_size(ModelSize::Tiny)
    };
    let read = Quantizers::read([&path], &config).unwrap();
    assert!(read.poi.is_none());
    let embeddings = numbers(300, &mut rng);
    assert_eq!(read.creative.unwrap().encode(&embeddings).unwrap(), quantizer.encode(&embeddings).unwrap());
    let error = Quantizer::read(&path, QuantizerKind::Creative, 4).unwrap_err().to_string();
    assert!(error.contains("encoder layer 0 has 15 weights, expected 5 x 4"), "{error}");
}

#[test]
fn a_matrix_is_read_by_name_or_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("quantizer.safetensors");
    let quantizer = Quantizer::new(2, vec![], vec![0.0, 1.0, 2.0, 3.0], [1, 2, 2]).unwrap();
    quantizer.write(&path, QuantizerKind::Poi).unwrap();
    let error = read_matrix(&path, None).unwrap_err().to_string();
    assert!(error.contains("has shape [1, 2, 2], expected [rows, width]"), "{error}");
    assert!(read_matrix(&path, Some("x")).unwrap_err().to_string().contains("no tensor `x`"));
    let bytes: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 3], &bytes).unwrap();
    safetensors::serialize_to_file([("e", view)], None, &path).unwrap();
    assert_eq!(read_matrix(&path, None).unwrap(), (vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3));
}

fn options(layers: usize, codes: usize) -> FitOptions {
    FitOptions { layers, codes, iterations: 15, seed: 7, balance_last: false }
}

fn squared_error(data: &[f32], quantizer: &Quantizer) -> f64 {
    let [layers, codes, width] = quantizer.shape();
    let found = quantizer.encode(data).unwrap();
    let rows = data.chunks(width).zip(found.chunks(layers));
    rows.map(|(row, found)| {
        let mut residual = row.to_vec();
        for (layer, &code) in found.iter().enumerate() {
            let entry = &quantizer.codebook()[(layer * codes + code as usize) * width..][..width];
            residual.iter_mut().zip(entry).for_each(|(r, c)| *r -= c);
        }
        residual.iter().map(|&r| f64::from(r) * f64::from(r)).sum::<f64>()
    })
    .sum()
}

#[test]
fn fitting_finds_clusters() {
    let data = clusters(2000, 16, 8, 1);
    let quantizer = fit(&data, 8, &options(1, 16), &mut |_, _| ()).unwrap();
    let codes = quantizer.encode(&data).unwrap();
    let report = CodeReport::of(&codes, 1, 16);
    assert_eq!(report.layers[0].used, 16);
    assert!((report.layers[0].perplexity - 16.0).abs() < 1e-9, "{report}");
    for row in 0..2000 {
        assert_eq!(codes[row], codes[row % 16], "rows of one cluster share a code");
    }
}

#[test]
fn every_layer_explains_more() {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(3);
    let data = numbers(3000 * 6, &mut rng);
    let errors: Vec<f64> = (1..5)
        .map(|layers| squared_error(&data, &fit(&data, 6, &options(layers, 32), &mut |_, _| ()).unwrap()))
        .collect();
    assert!(errors.windows(2).all(|pair| pair[1] < 0.7 * pair[0]), "{errors:?}");
}

#[test]
fn fitting_does_not_depend_on_threads() {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(4);
    let data = numbers(5000 * 5, &mut rng);
    let with_threads = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let balanced = FitOptions { balance_last: true, ..options(3, 40) };
        pool.install(|| fit(&data, 5, &balanced, &mut |_, _| ()).unwrap())
    };
    let (one, four) = (with_threads(1), with_threads(4));
    let bits = |quantizer: &Quantizer| quantizer.codebook().iter().map(|c| c.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&one), bits(&four));
    let other = fit(&data, 5, &FitOptions { seed: 8, ..options(3, 40) }, &mut |_, _| ()).unwrap();
    assert_ne!(bits(&one), bits(&other), "the seed counts");
}

#[test]
fn a_balanced_last_layer_is_used_more_evenly() {
    // Sizes of clusters that differ by far: plain k-means spends its codes on the many rows' spread.
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(5);
    let data: Vec<f32> = (0..6000)
        .flat_map(|row| {
            let spread: f32 = if row % 4 == 0 { 1.0 } else { 0.2 };
            (0..4).map(|_| spread * rng.random_range(-1.0..1.0f32)).collect::<Vec<_>>()
        })
        .collect();
    let report = |balance_last| {
        let options = FitOptions { iterations: 30, balance_last, ..options(2, 64) };
        let quantizer = fit(&data, 4, &options, &mut |_, _| ()).unwrap();
        CodeReport::of(&quantizer.encode(&data).unwrap(), 2, 64)
    };
    let (plain, balanced) = (report(false), report(true));
    assert!(balanced.layers[1].perplexity > plain.layers[1].perplexity, "{plain}\n{balanced}");
}

#[test]
fn fewer_distinct_rows_than_codes_are_no_fault() {
    let data = [1.0, 2.0, 1.0, 2.0, 3.0, 4.0].repeat(5);
    let quantizer = fit(&data, 2, &options(2, 8), &mut |_, _| ()).unwrap();
    assert_eq!(squared_error(&data, &quantizer), 0.0);
}

#[test]
fn bad_data_is_refused() {
    let message = |data: &[f32], width, options: FitOptions| match fit(data, width, &options, &mut |_, _| ())
    {
        Err(CatalogError::Quantizer { message }) => message,
        other => panic!("{other:?}"),
    };
    assert!(message(&[1.0, f32::NAN], 1, options(1, 2)).contains("row 1 value 0: NaN"));
    assert!(message(&[1.0, 2.0, 3.0], 2, options(1, 2)).contains("3 values are not rows of 2"));
    assert!(message(&[], 2, options(1, 2)).contains("0 values"));
    assert!(message(&[1.0], 1, options(0, 2)).contains("0 layers"));
    assert!(message(&[1.0], 1, options(1, 65_537)).contains("65537"));
}

#[test]
fn a_report_counts_by_hand() {
    let codes = [0, 0, 0, 1, 0, 0, 3, 2, 0, 0];
    let report = CodeReport::of(&codes, 2, 5);
    assert_eq!((report.rows, report.full_codes, report.deepest), (5, 3, 3));
    assert_eq!(report.collisions, 3.0 / 5.0);
    assert_eq!(report.layers.iter().map(|layer| layer.used).collect::<Vec<_>>(), [2, 3]);
    // exp of -(4/5 ln 4/5 + 1/5 ln 1/5)
    assert!((report.layers[0].perplexity - 1.649_384_6).abs() < 1e-6, "{report}");
    let empty = CodeReport::of(&[], 2, 5);
    assert_eq!((empty.rows, empty.collisions, empty.layers[0].perplexity), (0, 0.0, 0.0));
}
