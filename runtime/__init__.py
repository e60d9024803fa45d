"""Running a model: mounting its layers, the engine, and the processes around it."""
