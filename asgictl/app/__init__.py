"""What an application is and how its code is run: targets, messages, outcomes, the boundary around what users wrote."""
