//! What must hold of any world.

mod support;

use bidslate_lab::data::{Ask, Data};
use bidslate_lab::draw;
use bidslate_lab::lists::random_list;
use bidslate_lab::logs::{Logger, sample};
use bidslate_lab::world::{Parameters, Shown, Viewer, World};
use serde_json::json;
use support::{Import, VISITS, world};

#[test]
fn probabilities_are_inside_of_0_and_1_and_random_lists_have_the_rates_of_the_parameters() {
    let import = Import::new();
    let data = import.data();
    let asks = import.asks(&data);
    let world = world(&data, &asks, 1);
    let (mut clicks_poi, mut clicks_creative, mut slots) = (0.0, 0.0, 0.0);
    for ask in &asks {
        for number in 0..10 {
            let mut draws = draw::stream(5, "test", &format!("{} {number}", ask.id));
            let list = random_list(&data.catalog, ask, &mut draws);
            for clicks in Viewer::new(&world, ask).clicks(&list) {
                let parts = [clicks.poi, clicks.creative, clicks.conversion];
                assert!(parts.iter().all(|p| *p > 0.0 && *p < 1.0), "{clicks:?}");
                assert!(clicks.examination > 0.0 && clicks.examination <= 1.0, "{clicks:?}");
                clicks_poi += clicks.on_poi();
                clicks_creative += clicks.on_creative();
                slots += 1.0;
            }
        }
    }
    let parameters = Parameters::default();
    assert!((clicks_poi / slots / parameters.random_ctr_poi - 1.0).abs() < 0.05, "{}", clicks_poi / slots);
    assert!((clicks_creative / slots / parameters.random_ctr_creative - 1.0).abs() < 0.05);
}

#[test]
fn the_order_of_users_and_requests_changes_no_byte() {
    let import = Import::new();
    let files = |import: &Import, seed| {
        let data = import.data();
        world(&data, &import.asks(&data), seed).write(&import.path("world")).unwrap();
        ["world.json", "truth.safetensors"]
            .map(|name| std::fs::read(import.path("world").join(name)).unwrap())
    };
    let first = files(&import, 1);
    assert!(first == files(&import, 1));
    assert!(first != files(&import, 2));
    let mut visits = import.lines("visits.jsonl");
    visits.rotate_left(4 * VISITS);
    import.write("visits.jsonl", &visits);
    assert!(first == files(&import, 1));
}

#[test]
fn a_world_read_back_is_the_world_that_was_written() {
    let import = Import::new();
    let data = import.data();
    let made = world(&data, &import.asks(&data), 1);
    made.write(&import.path("world")).unwrap();
    let read = World::read(&import.path("world"), &data).unwrap();
    assert_eq!((made.parameters, made.fitted), (read.parameters, read.fitted));
    assert!(made.truth == read.truth);
}

#[test]
fn a_world_is_refused_beside_other_data() {
    let import = Import::new();
    let data = import.data();
    world(&data, &import.asks(&data), 1).write(&import.path("world")).unwrap();
    let mut items = import.lines("items.jsonl");
    items.swap(0, 1);
    import.write("items.jsonl", &items);
    let other = Data::read(import.dir.path()).unwrap();
    let error = World::read(&import.path("world"), &other).unwrap_err().to_string();
    assert!(error.contains("truth.safetensors: item.id"), "{error}");
}

#[test]
fn what_is_fitted_is_in_standard_deviations() {
    let import = Import::new();
    let data = import.data();
    let truth = world(&data, &import.asks(&data), 1).truth;
    let moments = |values: &[f32]| {
        let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / values.len() as f64;
        let squares = values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / values.len() as f64;
        (mean, squares - mean * mean)
    };
    for user in truth.interest.chunks_exact(data.catalog.items.len()) {
        let (mean, variance) = moments(user);
        assert!(
            mean.abs() < 1e-6 && (0.9..1.0).contains(&variance),
            "{mean} {variance}: the tails are cut at 60 items"
        );
    }
    for user in truth.creative_effect.chunks_exact(data.catalog.creative_ids.len()) {
        let items = data.catalog.items.iter().map(|item| moments(&user[item.creatives.clone()]).0);
        assert!(items.into_iter().all(|mean| mean.abs() < 1e-6));
    }
    let categories = data.catalog.categories.len();
    let items = |hour: usize| data.catalog.items.iter().map(move |item| hour * categories + item.category);
    let hours: Vec<f32> = (0..24).flat_map(items).map(|cell| truth.hour[cell]).collect();
    let (mean, variance) = moments(&hours);
    assert!(mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-5, "{mean} {variance}");
}

#[test]
fn users_like_what_they_visit_and_where_they_go_next() {
    let import = Import::new();
    let data = import.data();
    let asks = import.asks(&data);
    let world = world(&data, &asks, 1);
    let items = data.catalog.items.len();
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mut visited, mut next, mut later) = (Vec::new(), Vec::new(), Vec::new());
    for ask in &asks {
        let visits = &data.visits.of[ask.user];
        visited.extend(visits.iter().map(|v| f64::from(world.truth.interest[ask.user * items + v.item])));
        let viewer = Viewer::new(&world, ask);
        next.push(viewer.interest(visits[ask.visit].item));
        if let Some(tenth) = visits.get(ask.visit + 9) {
            later.push(viewer.interest(tenth.item));
        }
    }
    assert!(mean(&visited) > 0.5, "{}", mean(&visited));
    assert!(mean(&next) > mean(&later) + 0.5, "{} {}", mean(&next), mean(&later));
}

#[test]
fn what_stands_beside_an_item_matters() {
    let import = Import::new();
    let data = import.data();
    let asks = import.asks(&data);
    let world = world(&data, &asks, 1);
    let viewer = Viewer::new(&world, &asks[0]);
    let show = |item: usize| Shown { item, creative: data.catalog.items[item].creatives.start };
    let poi = |items: &[usize]| {
        let list: Vec<Shown> = items.iter().map(|&item| show(item)).collect();
        viewer.clicks(&list)[0].poi
    };
    let organic: Vec<usize> =
        (0..data.catalog.items.len()).filter(|&i| data.catalog.items[i].ad.is_none()).collect();
    let category = |item: usize| data.catalog.items[item].category;
    let first = organic[0];
    // Neighbours of no more interest than the item itself differ by their category alone, apart from their own pull.
    let logit = |p: f64| (p / (1.0 - p)).ln();
    for &other in &organic[1..] {
        let interest = viewer.interest(other);
        let alone = logit(poi(&[first]));
        let beside = logit(poi(&[first, other]));
        let same = if category(first) == category(other) { -0.4 } else { 0.0 };
        let outshone = (interest - viewer.interest(first) - 1.0).clamp(0.0, 2.0);
        let expected = same - 0.3 * outshone + 0.1 * interest.clamp(0.0, 2.0);
        assert!((beside - alone - expected).abs() < 1e-9, "{beside} {alone} {expected}");
    }
    let ads: Vec<usize> =
        (0..data.catalog.items.len()).filter(|&i| data.catalog.items[i].ad.is_some()).collect();
    let far = logit(poi(&[first, organic[1], organic[2], ads[0]]));
    let near = logit(poi(&[first, organic[1], ads[0]]));
    assert!((near - far + 0.2).abs() < 1e-9, "an ad within two slots: {near} {far}");
}

#[test]
fn the_logging_policy_knows_nothing_of_the_future() {
    let import = Import::new();
    let data = import.data();
    let parameters = Parameters::default();
    let logged = |data: &Data| -> Vec<Vec<Shown>> {
        let logger = Logger::new(&data.catalog, &data.visits, &parameters);
        let list = |ask: &Ask| logger.list(ask, &mut draw::stream(1, "test", &ask.id.to_string()));
        import.asks(data).iter().map(list).collect()
    };
    let before = logged(&data);
    let mut visits = import.lines("visits.jsonl");
    for visit in visits.iter_mut().filter(|visit| visit["visit"].as_u64().unwrap() >= VISITS as u64 - 10) {
        visit["item"] = json!(3);
        visit["creative"] = json!(30);
    }
    import.write("visits.jsonl", &visits);
    assert!(before == logged(&import.data()), "the last ten visits do not count");
    for visit in visits.iter_mut().filter(|visit| visit["visit"].as_u64().unwrap() < 20) {
        visit["item"] = json!(3);
        visit["creative"] = json!(30);
    }
    import.write("visits.jsonl", &visits);
    assert!(before != logged(&import.data()), "popularity among known visits counts");
}

#[test]
fn sampled_feedback_has_the_expected_means() {
    let import = Import::new();
    let data = import.data();
    let asks = import.asks(&data);
    let world = world(&data, &asks, 1);
    let list = random_list(&data.catalog, &asks[0], &mut draw::stream(1, "test", ""));
    let clicks = Viewer::new(&world, &asks[0]).clicks(&list);
    const SAMPLES: usize = 200_000;
    let mut counts = vec![[0.0; 3]; list.len()];
    let mut draws = draw::stream(1, "test", "feedback");
    for _ in 0..SAMPLES {
        for (count, slot) in counts.iter_mut().zip(sample(&clicks, &mut draws)) {
            count.iter_mut().zip(slot).for_each(|(count, happened)| *count += f64::from(happened));
            assert!(slot[2] <= slot[0], "a conversion follows a click");
        }
    }
    for (count, clicks) in counts.iter().zip(&clicks) {
        for (count, p) in count.iter().zip([clicks.on_poi(), clicks.on_creative(), clicks.conversions()]) {
            let deviation = (p * (1.0 - p) / SAMPLES as f64).sqrt();
            assert!(
                (count / SAMPLES as f64 - p).abs() < 4.5 * deviation,
                "{count} of {SAMPLES}, expected {p}"
            );
        }
    }
}
