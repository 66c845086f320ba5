"""What a candidate costs: counted, predicted and measured."""
