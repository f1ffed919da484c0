// What a probe found, and how it is written: no CUDA, so that it can be tested anywhere.
#pragma once

#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

namespace probes {

// A quantity, all samples of it, and what it was taken with.
struct Figure {
  std::string what;
  std::string unit;
  std::vector<double> samples;
  std::vector<std::pair<std::string, double>> parameters;
};

// The middle sample, or the mean of the two in the middle; of at least one.
inline double median(std::vector<double> samples) {
  std::sort(samples.begin(), samples.end());
  size_t n = samples.size();
  return (samples[(n - 1) / 2] + samples[n / 2]) / 2;
}

// What each step costs, of the times of a few steps and of many taken in turns: what the two have in common, the launch
// among it, goes.
inline std::vector<double> per_step(const std::vector<double>& few, const std::vector<double>& many, double steps_few,
                                    double steps_many) {
  std::vector<double> costs;
  for (size_t i = 0; i < few.size(); i++) costs.push_back((many[i] - few[i]) / (steps_many - steps_few));
  return costs;
}

// A JSON array of numbers with all of their digits.
inline std::string json(const std::vector<double>& numbers) {
  std::string out;
  for (double number : numbers) {
    char text[32];
    std::snprintf(text, sizeof text, "%s%.17g", out.empty() ? "" : ", ", number);
    out += text;
  }
  return "[" + out + "]";
}

// {"what", "unit", "value": the median, "parameters", "samples"}; names hold nothing that JSON would escape.
inline std::string json(const Figure& figure) {
  std::string parameters;
  for (const auto& [name, value] : figure.parameters) {
    char text[64];
    std::snprintf(text, sizeof text, "\": %.17g", value);
    parameters += (parameters.empty() ? "\"" : ", \"") + name + text;
  }
  char value[32];
  std::snprintf(value, sizeof value, "%.17g", median(figure.samples));
  return "{\"what\": \"" + figure.what + "\", \"unit\": \"" + figure.unit + "\", \"value\": " + value +
         ", \"parameters\": {" + parameters + "}, \"samples\": " + json(figure.samples) + "}";
}

}  // namespace probes
