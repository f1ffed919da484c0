"""Training of the models that Bidslate serves: tokens, interest, reward, allocation, payment."""
